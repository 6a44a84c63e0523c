//! The memory of this crate, counted. A process that renders templates and
//! tokenizes for others sets a limit; one more byte ends it with a status that
//! its parent knows. Elsewhere there is no limit, and memory that the system
//! refuses ends the process with one line rather than with SIGABRT.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering};

/// A thread's count is added to the shared one when it passes this.
const BATCH: isize = 1 << 16;

static USED: AtomicIsize = AtomicIsize::new(0);
static LIMIT: AtomicIsize = AtomicIsize::new(isize::MAX);
static PASSED: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
static REFUSED: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    static PENDING: Cell<isize> = const { Cell::new(0) };
}

struct Meter;

#[global_allocator]
static METER: Meter = Meter;

/// Calls the handler that C++ has set, which does not return; aborts if there is
/// none.
fn end(handler: &AtomicPtr<()>) -> ! {
    let handler = handler.load(Ordering::Relaxed);
    if !handler.is_null() {
        // SAFETY: only the two functions below store here, and what they store is
        // such a function.
        unsafe { std::mem::transmute::<*mut (), extern "C" fn()>(handler)() };
    }
    std::process::abort()
}

fn count(bytes: isize) {
    // A thread that ends has no cell any more: its last few are not counted.
    let _ = PENDING.try_with(|pending| {
        let sum = pending.get() + bytes;
        if sum.abs() < BATCH {
            pending.set(sum);
            return;
        }
        pending.set(0);
        let used = USED.fetch_add(sum, Ordering::Relaxed) + sum;
        if sum > 0 && used > LIMIT.load(Ordering::Relaxed) {
            end(&PASSED);
        }
    });
}

/// Counts bytes before the system is asked for them, so that no more than the limit
/// is ever held.
fn grow<F: FnOnce() -> *mut u8>(bytes: isize, allocate: F) -> *mut u8 {
    count(bytes);
    let data = allocate();
    if data.is_null() {
        end(&REFUSED);
    }
    data
}

// SAFETY: all is System's; the meter only counts.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size() as isize, || System.alloc(layout))
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size() as isize, || System.alloc_zeroed(layout))
    }
    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        System.dealloc(data, layout)
    }
    unsafe fn realloc(&self, data: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size as isize - layout.size() as isize, || {
            System.realloc(data, layout, size)
        })
    }
}

/// Sets the handler that ends the process where the system refuses memory. It may
/// neither return nor allocate.
#[no_mangle]
pub extern "C" fn pw_on_refused_memory(end: extern "C" fn()) {
    REFUSED.store(end as *mut (), Ordering::Relaxed);
}

/// Sets the handler that ends the process where the limit is passed, likewise.
#[no_mangle]
pub extern "C" fn pw_meter_on_passed(end: extern "C" fn()) {
    PASSED.store(end as *mut (), Ordering::Relaxed);
}

/// Bytes that this crate holds, to within 64 KiB a thread.
#[no_mangle]
pub extern "C" fn pw_meter_used() -> u64 {
    USED.load(Ordering::Relaxed).max(0) as u64
}

/// Sets how many bytes this crate may hold from now on.
#[no_mangle]
pub extern "C" fn pw_meter_limit(bytes: u64) {
    LIMIT.store(
        isize::try_from(bytes).unwrap_or(isize::MAX),
        Ordering::Relaxed,
    );
}
