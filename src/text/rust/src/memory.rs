//! Memory that the system refuses. Rust's own answer, a line on stderr and an
//! abort, can't be changed by a library: an allocator that asks first can.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;

type End = extern "C" fn();

static END: OnceLock<End> = OnceLock::new();

#[no_mangle]
pub extern "C" fn pw_on_refused_memory(end: End) {
    let _ = END.set(end);
}

struct Checked;

fn checked(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        if let Some(end) = END.get() {
            end();
        }
    }
    memory
}

// SAFETY: all is the system's allocator's; `end` does not unwind.
unsafe impl GlobalAlloc for Checked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        checked(System.alloc(layout))
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        checked(System.alloc_zeroed(layout))
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        checked(System.realloc(memory, layout, size))
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        System.dealloc(memory, layout)
    }
}

#[global_allocator]
static ALLOCATOR: Checked = Checked;
