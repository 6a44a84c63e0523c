//! JSON as Python's `json.dumps` writes it, which is what chat templates are
//! trained on: `, ` and `: ` between items, no escaping of HTML.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

const MAX_DEPTH: usize = 100;

pub struct Style {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sort: bool,
}

impl Style {
    /// `tojson(ensure_ascii, indent, separators, sort_keys)`.
    pub fn from_options(indent: Option<Value>, options: &Kwargs) -> Result<Self, Error> {
        let indent = match indent {
            Some(indent) => Some(indent),
            None => options.get::<Option<Value>>("indent")?,
        };
        let indent = match indent {
            None => None,
            Some(value) if value.is_none() => None,
            Some(value) => match value.as_str() {
                Some(text) => Some(text.to_string()),
                None => Some(" ".repeat(usize::try_from(value)?.min(64))),
            },
        };
        let default_item = if indent.is_some() { "," } else { ", " };
        let (mut item, mut key) = (default_item.to_string(), ": ".to_string());
        if let Some(separators) = options.get::<Option<Value>>("separators")? {
            if !separators.is_none() {
                item = separators.get_item_by_index(0)?.to_string();
                key = separators.get_item_by_index(1)?.to_string();
            }
        }
        Ok(Style {
            indent,
            item,
            key,
            ascii: options
                .get::<Option<bool>>("ensure_ascii")?
                .unwrap_or(false),
            sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        })
    }
}

pub fn dumps(value: &Value, style: &Style) -> Result<String, Error> {
    let mut out = String::new();
    write(&mut out, value, style, 0)?;
    Ok(out)
}

fn string(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c if ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn line(out: &mut String, style: &Style, depth: usize) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        for _ in 0..depth {
            out.push_str(indent);
        }
    }
}

fn sequence(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    out.push('[');
    let mut empty = true;
    for item in value.try_iter()? {
        if !empty {
            out.push_str(&style.item);
        }
        empty = false;
        line(out, style, depth + 1);
        write(out, &item, style, depth + 1)?;
    }
    if !empty {
        line(out, style, depth);
    }
    out.push(']');
    Ok(())
}

fn map(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    let mut keys: Vec<Value> = value.try_iter()?.collect();
    if style.sort {
        keys.sort();
    }
    out.push('{');
    for (index, key) in keys.iter().enumerate() {
        if index > 0 {
            out.push_str(&style.item);
        }
        line(out, style, depth + 1);
        match key.as_str() {
            Some(text) => string(out, text, style.ascii),
            None => {
                out.push('"');
                write(out, key, style, depth + 1)?;
                out.push('"');
            }
        }
        out.push_str(&style.key);
        write(out, &value.get_item(key)?, style, depth + 1)?;
    }
    if !keys.is_empty() {
        line(out, style, depth);
    }
    out.push('}');
    Ok(())
}

fn write(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::new(ErrorKind::InvalidOperation, what));
    if depth > MAX_DEPTH {
        return refuse("tojson: nested too deep".to_string());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::String => string(out, value.as_str().unwrap_or_default(), style.ascii),
        ValueKind::Seq | ValueKind::Iterable => sequence(out, value, style, depth)?,
        ValueKind::Map => map(out, value, style, depth)?,
        kind => return refuse(format!("tojson: {kind} is not JSON serializable")),
    }
    Ok(())
}
