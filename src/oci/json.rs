//! The one encoder of anything hashed: keys sorted by their bytes, no white space, no floats, so
//! that equal values have equal bytes wherever they were built (the subset of RFC 8785 we need).

use serde::Serialize;
use serde_json::Value;

/// A value that has no canonical form here.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Serialisation itself failed.
    #[error("cannot encode a document as JSON")]
    Serialise(#[from] serde_json::Error),
    /// A number with a fraction, or beyond 64 bits, whose spelling differs between encoders.
    #[error("the number {0} has no canonical spelling in JSON")]
    Float(String),
}

/// Encodes a value; the same value gives the same bytes.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let value = serde_json::to_value(value)?;
    let mut bytes = Vec::new();
    write(&value, &mut bytes)?;
    Ok(bytes)
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            out.push(b'{');
            for (position, (key, member)) in members.into_iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, key)?;
                out.push(b':');
                write(member, out)?;
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Number(number) if number.is_f64() => {
            return Err(EncodeError::Float(number.to_string()));
        }
        scalar => serde_json::to_writer(&mut *out, scalar)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_of_insertion_does_not_matter() {
        let a = json!({"b": 1, "a": {"z": [true, null], "y": "é\n"}});
        let b = json!({"a": {"y": "é\n", "z": [true, null]}, "b": 1});
        assert_eq!(encode(&a).unwrap(), encode(&b).unwrap());
        assert_eq!(
            encode(&a).unwrap(),
            "{\"a\":{\"y\":\"é\\n\",\"z\":[true,null]},\"b\":1}".as_bytes()
        );
        assert!(encode(&json!(1.5)).is_err());
    }
}
