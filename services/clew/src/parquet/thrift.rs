//! Thrift's compact protocol, as far as Parquet's metadata needs it.
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Lists of fewer elements have their length beside the type.
const SHORT_LIST: usize = 15;

/// Writes one struct; fields come in ascending order of their ids, which are 1 to 15 apart.
pub(super) struct Struct<'a> {
    out: &'a mut Vec<u8>,
    last: u8,
}

/// The bytes of a struct.
pub(super) fn structure(write: impl FnOnce(&mut Struct<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    Struct::write(&mut out, write);
    out
}

impl Struct<'_> {
    fn write(out: &mut Vec<u8>, write: impl FnOnce(&mut Struct<'_>)) {
        let mut inner = Struct { out, last: 0 };
        write(&mut inner);
        inner.out.push(0);
    }

    fn field(&mut self, id: u8, kind: u8) {
        self.out.push(((id - self.last) << 4) | kind);
        self.last = id;
    }

    pub(super) fn bool(&mut self, id: u8, value: bool) {
        self.field(id, if value { TRUE } else { FALSE });
    }

    pub(super) fn i32(&mut self, id: u8, value: i32) {
        self.field(id, I32);
        zigzag(self.out, i64::from(value));
    }

    pub(super) fn i64(&mut self, id: u8, value: i64) {
        self.field(id, I64);
        zigzag(self.out, value);
    }

    pub(super) fn text(&mut self, id: u8, value: &str) {
        self.field(id, BINARY);
        binary(self.out, value);
    }

    pub(super) fn structure(&mut self, id: u8, write: impl FnOnce(&mut Struct<'_>)) {
        self.field(id, STRUCT);
        Struct::write(self.out, write);
    }

    pub(super) fn numbers(&mut self, id: u8, values: &[i32]) {
        self.list(id, I32, values.len());
        values.iter().for_each(|value| zigzag(self.out, i64::from(*value)));
    }

    pub(super) fn texts(&mut self, id: u8, values: &[&str]) {
        self.list(id, BINARY, values.len());
        values.iter().for_each(|value| binary(self.out, value));
    }

    pub(super) fn structures<T>(
        &mut self,
        id: u8,
        values: &[T],
        write: impl Fn(&T, &mut Struct<'_>),
    ) {
        self.list(id, STRUCT, values.len());
        values.iter().for_each(|value| Struct::write(self.out, |inner| write(value, inner)));
    }

    fn list(&mut self, id: u8, kind: u8, length: usize) {
        self.field(id, LIST);
        match u8::try_from(length) {
            Ok(short) if length < SHORT_LIST => self.out.push((short << 4) | kind),
            _ => {
                self.out.push(0xf0 | kind);
                varint(self.out, length as u64);
            }
        }
    }
}

fn binary(out: &mut Vec<u8>, value: &str) {
    varint(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

#[allow(clippy::cast_sign_loss, reason = "zigzag maps signed numbers to unsigned ones")]
fn zigzag(out: &mut Vec<u8>, value: i64) {
    varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Seven bits a byte, the lowest first.
#[allow(clippy::cast_possible_truncation, reason = "seven bits fit")]
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compact_protocol_by_example() {
        let bytes = structure(|s| {
            s.i32(1, -1);
            s.i64(4, 300);
            s.text(5, "hi");
            s.bool(6, true);
            s.structure(8, |inner| inner.bool(1, false));
            s.numbers(9, &[0, 7]);
            s.texts(10, &["a"]);
            s.structures(11, &[5; 16], |value, inner| inner.i32(2, *value));
        });
        let mut expected = vec![
            0x15, 0x01, 0x36, 0xd8, 0x04, 0x18, 2, b'h', b'i', 0x11, 0x2c, 0x12, 0, 0x19, 0x25, 0,
            14, 0x19, 0x18, 1, b'a', 0x19, 0xfc, 16,
        ];
        expected.extend([0x25, 10, 0].repeat(16));
        expected.push(0);
        assert_eq!(bytes, expected);
    }
}
