//! Where scalars were written, in so few bytes that each can carry it.

/// The number of a file and a line in it, or nothing. What the numbers of files mean is up to who
/// gives them. Numbers above 16,777,215 do not fit: such a file is nothing, such a line the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LineMark([u16; 3]);

/// 24 bits.
const MAX: u32 = 0x00ff_ffff;

impl LineMark {
    /// A line of a file. Numbers of files start at one; file 0 is nothing.
    pub fn new(file: u32, line: u32) -> Self {
        if file == 0 || file > MAX {
            return Self::default();
        }
        let [_, file_high, file @ ..] = file.to_be_bytes();
        let [_, line_high, line @ ..] = line.min(MAX).to_be_bytes();
        let high = u16::from_be_bytes([file_high, line_high]);
        Self([high, u16::from_be_bytes(file), u16::from_be_bytes(line)])
    }

    /// File and line, unless it is nothing.
    pub fn get(self) -> Option<(u32, u32)> {
        let Self([high, file, line]) = self;
        let [file_high, line_high] = high.to_be_bytes();
        let number = |high: u8, low: u16| u32::from(high) << 16 | u32::from(low);
        let file = number(file_high, file);
        (file != 0).then(|| (file, number(line_high, line)))
    }

    /// This, or the other if this is nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::default() { other } else { self }
    }
}

/// How the scalars of a text are marked.
#[derive(Debug, Clone, Copy, Default)]
pub enum Marking {
    /// Not at all.
    #[default]
    None,
    /// Each with its line, counted on from the mark of the line before the first.
    Below(LineMark),
    /// All the same.
    All(LineMark),
}

impl Marking {
    /// The mark for a line of the text, counted from one.
    pub fn mark(self, line: u32) -> LineMark {
        match self {
            Self::None => LineMark::default(),
            Self::All(mark) => mark,
            Self::Below(mark) => mark
                .get()
                .map_or(mark, |(file, before)| LineMark::new(file, before.saturating_add(line))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_keeps_file_and_line_in_six_bytes() {
        assert_eq!(size_of::<LineMark>(), 6);
        for (file, line, want) in [
            (0, 5, None),
            (1, 0, Some((1, 0))),
            (1, 2, Some((1, 2))),
            (0x00ab_cdef, 0x0012_3456, Some((0x00ab_cdef, 0x0012_3456))),
            (MAX, u32::MAX, Some((MAX, MAX))),
            (MAX + 1, 1, None),
        ] {
            assert_eq!(LineMark::new(file, line).get(), want, "{file}:{line}");
        }
    }

    #[test]
    fn lines_are_counted_on() {
        let mark = LineMark::new(3, 10);
        assert_eq!(Marking::Below(mark).mark(2).get(), Some((3, 12)));
        assert_eq!(Marking::All(mark).mark(2), mark);
        assert_eq!(Marking::None.mark(2).or(mark), mark);
        assert_eq!(Marking::Below(LineMark::default()).mark(2).get(), None);
    }
}
