//! What a pack unpacks to, counted while it comes in.
//!
//! A pack of a few megabytes can hold objects of gigabytes, and libgit2 loads whole what it needs:
//! commits, directories, and whatever a difference is applied to. So each entry's size is known
//! and accepted before libgit2 sees its end.

use flate2::{Decompress, FlushDecompress, Status};
use git2::Oid;

use crate::{Limits, SourceError};

/// What one commit or tag may have: more than any message that people write.
pub(crate) const MAX_COMMIT: u64 = 1 << 20;

/// What one directory may have: some hundred thousand entries.
pub(crate) const MAX_DIRECTORY: u64 = 32 << 20;

/// Inflated bytes are thrown away in pieces of this size.
const PIECE: usize = 32 * 1024;

/// Where in a pack the next byte is.
enum At {
    /// In the first twelve bytes.
    Head(Vec<u8>),
    /// In the type and size of an entry.
    Size { kind: u8, size: u64, shift: u32 },
    /// In the distance to an earlier entry.
    Distance { size: u64, distance: Option<u64> },
    /// In the id of an object.
    Base { size: u64, id: Vec<u8> },
    /// In compressed data.
    Data { size: u64, delta: Option<Vec<u8>> },
    /// Behind the last entry.
    End,
}

/// A pack on its way.
pub(crate) struct Unpacking<'a> {
    limits: &'a Limits,
    /// The size of an object that was here before.
    known: &'a dyn Fn(Oid) -> Option<u64>,
    at: At,
    inflate: Decompress,
    scrap: Vec<u8>,
    /// Bytes of the pack so far, and where its present entry begins.
    offset: u64,
    start: u64,
    /// Entries that are still to come.
    left: u64,
    /// Bytes of all objects so far.
    total: u64,
    /// Where entries begin that are too large for a difference, and whether there are differences
    /// to objects of the pack that are named by id, which may be those.
    large: Vec<u64>,
    by_id: bool,
}

impl<'a> Unpacking<'a> {
    pub(crate) fn new(limits: &'a Limits, known: &'a dyn Fn(Oid) -> Option<u64>) -> Self {
        Self {
            limits,
            known,
            at: At::Head(Vec::with_capacity(12)),
            inflate: Decompress::new(true),
            scrap: vec![0; PIECE],
            offset: 0,
            start: 0,
            left: 0,
            total: 0,
            large: Vec::new(),
            by_id: false,
        }
    }

    /// Looks at the next piece of the pack.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), SourceError> {
        while let Some((first, _)) = bytes.split_first() {
            let taken = match self.at {
                At::Data { .. } => self.data(bytes)?,
                At::End => bytes.len(),
                _ => {
                    self.byte(*first)?;
                    1
                }
            };
            self.offset += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Takes a byte of what is not compressed.
    fn byte(&mut self, byte: u8) -> Result<(), SourceError> {
        let more = byte & 0x80 != 0;
        let low = u64::from(byte & 0x7f);
        match &mut self.at {
            At::Head(head) => {
                head.push(byte);
                if !b"PACK".starts_with(&head[..head.len().min(4)]) {
                    return Err(bad("the pack does not start like one"));
                }
                if let Some(count) = head.get(8..12) {
                    self.left = count.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
                    if self.left > self.limits.objects {
                        let limit = self.limits.objects;
                        return Err(SourceError::TooLarge { what: "objects", limit });
                    }
                    // The byte at hand is counted by the caller.
                    self.next(self.offset + 1);
                }
            }
            At::Size { kind, size, shift } => {
                if *shift == 0 {
                    *kind = byte >> 4 & 7;
                    *size = low & 15;
                    *shift = 4;
                } else {
                    *size |= low << *shift;
                    *shift += 7;
                }
                if *shift > 53 {
                    return Err(bad("an object's size is no number"));
                }
                if !more {
                    let (kind, size) = (*kind, *size);
                    self.begin(kind, size)?;
                }
            }
            At::Distance { size, distance } => {
                let so_far = distance.map_or(0, |distance| (distance + 1) << 7) | low;
                *distance = Some(so_far);
                let size = *size;
                if so_far > self.start {
                    return Err(bad("a difference to what is not in the pack"));
                }
                if !more {
                    if self.large.binary_search(&(self.start - so_far)).is_ok() {
                        return Err(too_large(self.limits.delta_bytes));
                    }
                    self.open(size, Some(Vec::new()));
                }
            }
            At::Base { size, id } => {
                id.push(byte);
                if id.len() == 20 {
                    let size = *size;
                    let id = Oid::from_bytes(id).map_err(|_| bad("an object without an id"))?;
                    match (self.known)(id) {
                        Some(base) if base > self.limits.delta_bytes => {
                            return Err(too_large(self.limits.delta_bytes));
                        }
                        Some(_) => {}
                        None => self.by_id = true,
                    }
                    self.open(size, Some(Vec::new()));
                }
            }
            At::Data { .. } | At::End => {}
        }
        Ok(())
    }

    /// An entry's type and size are known.
    fn begin(&mut self, kind: u8, size: u64) -> Result<(), SourceError> {
        let (commit, directory, file, tag, by_distance, by_id) = (1, 2, 3, 4, 6, 7);
        let limit = match kind {
            kind if kind == commit || kind == tag => MAX_COMMIT,
            kind if kind == directory => MAX_DIRECTORY,
            kind if kind == file => self.limits.object_bytes,
            kind if kind == by_distance || kind == by_id => self.limits.delta_bytes,
            _ => return Err(bad("an object of an unknown type")),
        };
        if size > limit {
            return Err(too_large(limit));
        }
        match kind {
            kind if kind == by_distance => self.at = At::Distance { size, distance: None },
            kind if kind == by_id => self.at = At::Base { size, id: Vec::with_capacity(20) },
            _ => {
                if size > self.limits.delta_bytes {
                    self.large.push(self.start);
                }
                self.count(size)?;
                self.open(size, None);
            }
        }
        Ok(())
    }

    fn open(&mut self, size: u64, delta: Option<Vec<u8>>) {
        self.inflate.reset(true);
        self.at = At::Data { size, delta };
    }

    /// Inflates what there is of an entry, and returns how much that was.
    fn data(&mut self, bytes: &[u8]) -> Result<usize, SourceError> {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(bytes, &mut self.scrap, FlushDecompress::None);
        let status = status.map_err(|_| bad("an object cannot be inflated"))?;
        let taken = self.inflate.total_in() - before.0;
        let taken = usize::try_from(taken).unwrap_or(bytes.len());
        let given = usize::try_from(self.inflate.total_out() - before.1).unwrap_or(PIECE);
        let At::Data { size, delta } = &mut self.at else { return Ok(taken) };
        if let Some(head) = delta {
            // Two numbers of at most ten bytes.
            let room = 20 - head.len();
            head.extend_from_slice(&self.scrap[..given.min(room)]);
        }
        if self.inflate.total_out() > *size {
            return Err(bad("an object is larger than it says"));
        }
        match status {
            Status::StreamEnd => {
                if self.inflate.total_out() < *size {
                    return Err(bad("an object is smaller than it says"));
                }
                if let Some(head) = delta.take() {
                    let result = result_size(&head)
                        .ok_or_else(|| bad("a difference that does not say its size"))?;
                    if result > self.limits.delta_bytes {
                        return Err(too_large(self.limits.delta_bytes));
                    }
                    self.count(result)?;
                }
                if self.by_id && !self.large.is_empty() {
                    return Err(too_large(self.limits.delta_bytes));
                }
                self.left -= 1;
                self.next(self.offset + taken as u64);
            }
            Status::Ok | Status::BufError if taken == 0 && given == 0 => {
                return Err(bad("an object cannot be inflated"));
            }
            Status::Ok | Status::BufError => {}
        }
        Ok(taken)
    }

    fn next(&mut self, start: u64) {
        self.start = start;
        self.at = match self.left {
            0 => At::End,
            _ => At::Size { kind: 0, size: 0, shift: 0 },
        };
    }

    /// Adds an object.
    fn count(&mut self, size: u64) -> Result<(), SourceError> {
        self.total += size;
        let limit = self.limits.unpacked_bytes;
        if self.total > limit {
            return Err(SourceError::TooLarge { what: "unpacked bytes", limit });
        }
        Ok(())
    }
}

/// The second of the two numbers that a difference begins with.
fn result_size(head: &[u8]) -> Option<u64> {
    let mut bytes = head.iter();
    let mut number = || {
        let mut number = 0u64;
        for shift in (0..56).step_by(7) {
            let byte = *bytes.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    };
    let _base = number()?;
    number()
}

fn bad(why: &str) -> SourceError {
    SourceError::BadObjects { why: why.into() }
}

pub(crate) fn too_large(limit: u64) -> SourceError {
    SourceError::TooLarge { what: "bytes of one object", limit }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// What may be part of a difference here.
    const MAX_DELTA: u64 = 10_000;

    const COMMIT: u8 = 1;
    const TREE: u8 = 2;
    const BLOB: u8 = 3;
    const BY_DISTANCE: u8 = 6;
    const BY_ID: u8 = 7;

    fn zeros(count: u64) -> Vec<u8> {
        let mut to = ZlibEncoder::new(Vec::new(), Compression::fast());
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), count), &mut to).unwrap();
        to.finish().unwrap()
    }

    fn deflated(content: &[u8]) -> Vec<u8> {
        let mut to = ZlibEncoder::new(Vec::new(), Compression::fast());
        to.write_all(content).unwrap();
        to.finish().unwrap()
    }

    fn low(byte: u64, more: bool) -> u8 {
        u8::try_from(byte & 0x7f).unwrap() | if more { 0x80 } else { 0 }
    }

    /// An entry's type and size, then what stands before its data, then its data.
    fn entry(kind: u8, size: u64, before: &[u8], data: &[u8]) -> Vec<u8> {
        let mut left = size >> 4;
        let mut bytes = vec![low(u64::from(kind) << 4 | size & 15, left > 0)];
        while left > 0 {
            bytes.push(low(left, left >> 7 > 0));
            left >>= 7;
        }
        [&bytes, before, data].concat()
    }

    fn blob(content: &[u8]) -> Vec<u8> {
        entry(BLOB, content.len() as u64, &[], &deflated(content))
    }

    /// A difference between objects of these sizes.
    fn delta(kind: u8, before: &[u8], base: u64, result: u64) -> Vec<u8> {
        let mut content = Vec::new();
        for mut number in [base, result] {
            while number >> 7 > 0 {
                content.push(low(number, true));
                number >>= 7;
            }
            content.push(low(number, false));
        }
        content.extend(b"\x01x");
        entry(kind, content.len() as u64, before, &deflated(&content))
    }

    fn distance(to: usize) -> Vec<u8> {
        let mut to = to as u64;
        let mut bytes = vec![low(to, false)];
        while to >> 7 > 0 {
            to = (to >> 7) - 1;
            bytes.insert(0, low(to, true));
        }
        bytes
    }

    fn pack(entries: &[Vec<u8>]) -> Vec<u8> {
        let count = u32::try_from(entries.len()).unwrap();
        let mut bytes = [b"PACK\0\0\0\x02", &count.to_be_bytes()[..]].concat();
        bytes.extend(entries.concat());
        bytes.extend([7; 20]);
        bytes
    }

    fn look_within(bytes: &[u8], limits: &Limits, piece: usize) -> Result<(), SourceError> {
        // Of what is here already, one object is large.
        let known = |id: Oid| match id.as_bytes()[0] {
            1 => Some(1),
            2 => Some(MAX_DELTA + 1),
            _ => None,
        };
        let mut unpacking = Unpacking::new(limits, &known);
        bytes.chunks(piece).try_for_each(|piece| unpacking.feed(piece))?;
        assert!(matches!(unpacking.at, At::End), "not seen to its end");
        Ok(())
    }

    fn look(entries: &[Vec<u8>]) -> Result<(), SourceError> {
        look_within(&pack(entries), &limits(), 4096)
    }

    fn limits() -> Limits {
        Limits { delta_bytes: MAX_DELTA, ..Limits::default() }
    }

    fn limit_of(entries: &[Vec<u8>]) -> u64 {
        match look(entries).unwrap_err() {
            SourceError::TooLarge { what: "bytes of one object", limit } => limit,
            error => panic!("{error:?}"),
        }
    }

    #[test]
    fn every_entry_is_followed_in_pieces_of_any_size() {
        let first = blob(&[b"some text\n".repeat(500), b"end".to_vec()].concat());
        let second = blob(b"");
        let far = first.len() + second.len();
        let entries = [
            first,
            second,
            delta(BY_DISTANCE, &distance(far), 5003, 7000),
            delta(BY_ID, &[1; 20], 1, 1),
            delta(BY_ID, &[9; 20], 1, 1),
            entry(TREE, 0, &[], &deflated(b"")),
        ];
        for piece in [1, 7, 4096, 1 << 20] {
            look_within(&pack(&entries), &limits(), piece).unwrap();
        }
        look(&[]).unwrap();
    }

    #[test]
    fn an_object_that_inflates_to_too_much_is_refused_by_what_it_says() {
        let limits = limits();
        for (kind, limit) in
            [(COMMIT, MAX_COMMIT), (TREE, MAX_DIRECTORY), (BLOB, limits.object_bytes)]
        {
            assert_eq!(limit_of(&[entry(kind, limit + 1, &[], &[])]), limit);
        }
        assert_eq!(limit_of(&[delta(BY_ID, &[1; 20], 1, MAX_DELTA + 1)]), MAX_DELTA);
        assert_eq!(limit_of(&[entry(BY_ID, MAX_DELTA + 1, &[1; 20], &[])]), MAX_DELTA);
        for liar in [entry(COMMIT, 9, &[], &zeros(1 << 20)), entry(COMMIT, 9, &[], &zeros(8))] {
            let error = look(&[liar]).unwrap_err();
            assert!(matches!(error, SourceError::BadObjects { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_large_file_is_no_base_of_a_difference() {
        let large = entry(BLOB, MAX_DELTA + 1, &[], &zeros(MAX_DELTA + 1));
        look(&[large.clone(), blob(b"beside")]).unwrap();
        let by_distance = delta(BY_DISTANCE, &distance(large.len()), 1, 1);
        assert_eq!(limit_of(&[large.clone(), by_distance]), MAX_DELTA);
        // One that is named by id may be it, wherever it stands.
        let by_id = delta(BY_ID, &[9; 20], 1, 1);
        assert_eq!(limit_of(&[large.clone(), by_id.clone()]), MAX_DELTA);
        assert_eq!(limit_of(&[by_id, large.clone()]), MAX_DELTA);
        look(&[large, delta(BY_ID, &[1; 20], 1, 1)]).unwrap();
        assert_eq!(limit_of(&[delta(BY_ID, &[2; 20], 1, 1)]), MAX_DELTA);
    }

    #[test]
    fn all_objects_together_have_a_limit() {
        let limits = Limits { unpacked_bytes: 1000, ..limits() };
        let too_much = |entries: &[Vec<u8>]| {
            let error = look_within(&pack(entries), &limits, 4096).unwrap_err();
            matches!(error, SourceError::TooLarge { what: "unpacked bytes", limit: 1000 })
        };
        look_within(&pack(&[blob(&[0; 999])]), &limits, 4096).unwrap();
        assert!(too_much(&[blob(&[0; 999]), blob(b"xx")]));
        assert!(too_much(&[blob(&[0; 999]), delta(BY_ID, &[1; 20], 1, 2)]));
    }

    #[test]
    fn what_is_no_pack_is_told() {
        let good = pack(&[blob(b"a"), delta(BY_ID, &[1; 20], 1, 1)]);
        let limits = limits();
        for (at, byte) in [(0, b'p'), (12, 0xd0), (12, 0x00), (13, 0)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let error = look_within(&bytes, &limits, 1).unwrap_err();
            assert!(matches!(error, SourceError::BadObjects { .. }), "{at}: {error:?}");
        }
        let endless = entry(BLOB, 1 << 60, &[], &[]);
        assert!(look(&[endless]).is_err());
        let before_the_pack = delta(BY_DISTANCE, &distance(1000), 1, 1);
        assert!(look(&[before_the_pack]).is_err());
        // Whatever comes, it ends with an answer.
        let mut random = 7u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut bytes = good.clone();
            let at = usize::try_from(random >> 33).unwrap() % bytes.len();
            bytes[at] = random.to_le_bytes()[3];
            let known = |_: Oid| None;
            let _ = Unpacking::new(&limits, &known).feed(&bytes);
        }
    }
}
