//! Chat templates as transformers' `apply_chat_template` renders them with
//! Jinja2: trimmed blocks, its own `tojson`, `raise_exception`,
//! `strftime_now`, `{% generation %}` as a block that changes nothing.

use crate::abi::{guard, text, Failure, Outcome, PwBytes};
use crate::pyjson;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{escape_formatter, AutoEscape, Environment, Error, ErrorKind, Output, State};
use std::fmt::{self, Write};

const NAME: &str = "chat";
/// Fuel for a rendering: enough for thousands of messages, little enough to end
/// within seconds.
const BASE_FUEL: u64 = 2_000_000;
const FUEL_PER_INPUT_BYTE: u64 = 64;
/// How many printed bytes a unit of fuel pays for: so at most 16 MB are printed, and
/// 512 bytes for each byte of the input.
const BYTES_PER_FUEL: u64 = 8;
const RAISED: &str = "the template says: ";

pub struct PwTemplate(Environment<'static>);

fn tojson(
    state: &State,
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let style = pyjson::Style::from_options(indent, &options)?;
    options.assert_all_used()?;
    let json = pyjson::dumps(value, &style)?;
    state.consume_fuel(json.len() as u64 / 64)?;
    Ok(Value::from(json))
}

/// Makes printing cost fuel: a list that repeats a list is small until it is
/// printed, and minijinja prints without limit.
struct Metered<W, F> {
    out: W,
    pay: F,
    unpaid: u64,
    refused: Option<Error>,
}

impl<W: Write, F: Fn(u64) -> Result<(), Error>> Write for Metered<W, F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.unpaid += text.len() as u64;
        if let Err(error) = (self.pay)(self.unpaid / BYTES_PER_FUEL) {
            self.refused = Some(error);
            return Err(fmt::Error);
        }
        self.unpaid %= BYTES_PER_FUEL;
        self.out.write_str(text)
    }
}

struct Nowhere;

impl Write for Nowhere {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

fn print_metered(out: impl Write, state: &State, value: &Value) -> Result<(), Error> {
    let mut metered = Metered {
        out,
        pay: |fuel| state.consume_fuel(fuel),
        unpaid: 0,
        refused: None,
    };
    write!(metered, "{value}").map_err(|error| metered.refused.take().unwrap_or(error.into()))
}

fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if matches!(state.auto_escape(), AutoEscape::None) {
        return print_metered(out, state, value);
    }
    print_metered(Nowhere, state, value)?;
    escape_formatter(out, state, value)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("{RAISED}{message}"),
    ))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let mut out = String::new();
    write!(out, "{}", chrono::Local::now().format(format))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "strftime_now: unknown format"))?;
    Ok(out)
}

/// Python's `str.title`, where every letter after a non-letter is a capital.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) if name == "title" && args.is_empty() => Ok(Value::from(title(text))),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// `{% generation %}` becomes `{% if true %}`: the same whitespace rules, and
/// the body as it is. Tags in string literals don't occur in practice.
fn plain_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let tag = &rest[start..start + length + 2];
        let inner = tag[2..tag.len() - 2].trim_matches(|c| c == '-' || c == '+');
        let name = match inner.trim() {
            "generation" => Some(" if true "),
            "endgeneration" => Some(" endif "),
            _ => None,
        };
        out.push_str(&rest[..start]);
        match name {
            Some(name) => {
                let body = &tag[2..tag.len() - 2];
                let sign = |c: Option<char>| match c {
                    Some(c @ ('-' | '+')) => c.to_string(),
                    _ => String::new(),
                };
                out.push_str("{%");
                out.push_str(&sign(body.chars().next()));
                out.push_str(name);
                out.push_str(&sign(body.chars().last()));
                out.push_str("%}");
            }
            None => out.push_str(tag),
        }
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    out
}

fn failure(error: Error) -> Failure {
    let mut message = error.detail().unwrap_or_default().to_string();
    if error.kind() == ErrorKind::OutOfFuel {
        message = "the template runs too long: an endless loop?".to_string();
    } else if !message.starts_with(RAISED) {
        message = format!("{error:#}");
        message.truncate(message.find('\n').unwrap_or(message.len()));
    }
    Failure::corrupt(message)
}

fn to_value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (_, Some(integer)) => Value::from(integer),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(to_value).collect(),
        serde_json::Value::Object(items) => Value::from_pairs(
            items
                .iter()
                .map(|(key, item)| (key.as_str(), to_value(item))),
        ),
    }
}

fn load(source: &str) -> Outcome<PwTemplate> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(failure)?;
    env.set_syntax(syntax);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(print);
    env.set_unknown_method_callback(method);
    env.set_recursion_limit(200);
    env.add_filter("tojson", tojson);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.add_template_owned(NAME, plain_generation(source))
        .map_err(failure)?;
    Ok(PwTemplate(env))
}

fn render(template: &mut PwTemplate, variables: &str) -> Outcome<String> {
    let json: serde_json::Value = serde_json::from_str(variables).map_err(Failure::invalid)?;
    let input = variables.len() as u64;
    template
        .0
        .set_fuel(Some(BASE_FUEL + FUEL_PER_INPUT_BYTE * input));
    let context = to_value(&json);
    template
        .0
        .get_template(NAME)
        .and_then(|template| template.render(context))
        .map_err(failure)
}

/// # Safety
/// `source` points to `size` bytes; `out` and `error` are writable. The
/// template is given back with `pw_template_free`.
#[no_mangle]
pub unsafe extern "C" fn pw_template_load(
    source: *const u8,
    size: usize,
    out: *mut *mut PwTemplate,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let template = load(text(source, size, "the template")?)?;
        *out = Box::into_raw(Box::new(template));
        Ok(())
    })
}

/// # Safety
/// `template` is null or came from `pw_template_load` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn pw_template_free(template: *mut PwTemplate) {
    if !template.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(template));
            Ok(())
        });
    }
}

/// Renders with the JSON object `variables` as the template's globals.
///
/// # Safety
/// `template` is alive and used by this call only.
#[no_mangle]
pub unsafe extern "C" fn pw_template_render(
    template: *mut PwTemplate,
    variables: *const u8,
    size: usize,
    out: *mut PwBytes,
    error: *mut PwBytes,
) -> i32 {
    guard(error, || {
        let rendered = render(&mut *template, text(variables, size, "a message")?)?;
        out.write(PwBytes::from_vec(rendered.into_bytes()));
        Ok(())
    })
}
