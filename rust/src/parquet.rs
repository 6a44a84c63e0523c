//! Rows of a Parquet file as JSON lines, only the columns asked for.

use crate::abi::{guard, text, Failure, Outcome, PwBytes};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use std::fs::File;
use std::sync::Arc;

pub struct PwParquet(RowIter<'static>);

/// Opens a file. `columns` are the names to read, one a line; those that the file
/// lacks are passed over, and it is an error if it lacks all.
fn open(path: &str, columns: &str) -> Outcome<PwParquet> {
    let file = File::open(path).map_err(Failure::io)?;
    let reader = SerializedFileReader::new(file).map_err(Failure::corrupt)?;
    let schema = reader.metadata().file_metadata().schema();
    let wanted: Vec<_> = schema
        .get_fields()
        .iter()
        .filter(|field| columns.split('\n').any(|name| name == field.name()))
        .map(Arc::clone)
        .collect();
    if wanted.is_empty() {
        let names: Vec<_> = schema
            .get_fields()
            .iter()
            .map(|field| field.name())
            .collect();
        return Err(Failure::invalid(format!(
            "no column that holds text (it has {})",
            names.join(", ")
        )));
    }
    let projection = Type::group_type_builder(schema.name())
        .with_fields(wanted)
        .build()
        .map_err(Failure::corrupt)?;
    let rows = RowIter::from_file_into(Box::new(reader))
        .project(Some(projection))
        .map_err(Failure::corrupt)?;
    Ok(PwParquet(rows))
}

fn next(rows: &mut PwParquet, limit: usize) -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    while out.len() < limit {
        let Some(row) = rows.0.next() else {
            break;
        };
        let row = row.map_err(Failure::corrupt)?.to_json_value();
        serde_json::to_writer(&mut out, &row).map_err(Failure::corrupt)?;
        out.push(b'\n');
    }
    Ok(out)
}

/// # Safety
/// Pointers with their lengths are readable; `out` and `error` are writable.
/// The reader is given back with `pw_parquet_free`.
#[no_mangle]
pub unsafe extern "C" fn pw_parquet_open(
    path: *const u8,
    path_size: usize,
    columns: *const u8,
    columns_size: usize,
    out: *mut *mut PwParquet,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let path = text(path, path_size, "the path")?;
        let rows = open(path, text(columns, columns_size, "a column")?)?;
        *out = Box::into_raw(Box::new(rows));
        Ok(())
    })
}

/// # Safety
/// `rows` is null or came from `pw_parquet_open` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn pw_parquet_free(rows: *mut PwParquet) {
    if !rows.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(rows));
            Ok(())
        });
    }
}

/// The next rows as JSON lines, at least `limit` bytes unless the file ends;
/// nothing at its end.
///
/// # Safety
/// `rows` is alive and used by this call only.
#[no_mangle]
pub unsafe extern "C" fn pw_parquet_next(
    rows: *mut PwParquet,
    limit: usize,
    out: *mut PwBytes,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let lines = next(&mut *rows, limit)?;
        out.write(PwBytes::from_vec(lines));
        Ok(())
    })
}
