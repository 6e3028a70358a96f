//! The sql capability: one call is one transaction.

use core::marker::PhantomData;

use crate::abi::*;
use crate::memory::Buffer;

/// One transaction: steps with their cells. The texts and blobs are borrowed
/// until it has run.
pub struct Script<'a> {
    steps: Buffer,
    cells: Buffer,
    borrowed: PhantomData<&'a [u8]>,
}

impl<'a> Script<'a> {
    pub fn new() -> Script<'a> {
        Script { steps: Buffer::new(), cells: Buffer::new(), borrowed: PhantomData }
    }

    /// Starts a step of one of the kinds `SQL_EXEC`, `SQL_QUERY`, `SQL_GUARD` and
    /// `SQL_MANY`; rows x columns cells follow, row by row.
    pub fn step(&mut self, kind: u32, sql: &'a str, columns: u32, rows: u32) -> &mut Self {
        // The cells may move until the script runs: the step keeps an index.
        for v in [kind, sql.as_ptr() as u32, sql.len() as u32, columns, rows, self.cells.len() as u32] {
            self.steps.put(&v.to_le_bytes());
        }
        self
    }

    fn cell(&mut self, kind: u32, length: u32, value: u64) -> &mut Self {
        self.cells.put(&kind.to_le_bytes());
        self.cells.put(&length.to_le_bytes());
        self.cells.put(&value.to_le_bytes());
        self
    }

    pub fn null(&mut self) -> &mut Self {
        self.cell(SQL_NULL, 0, 0)
    }

    pub fn int(&mut self, v: i64) -> &mut Self {
        self.cell(SQL_INT, 0, v as u64)
    }

    pub fn float(&mut self, v: f64) -> &mut Self {
        self.cell(SQL_FLOAT, 0, v.to_bits())
    }

    /// A text; it should be UTF-8.
    pub fn text(&mut self, v: &'a [u8]) -> &mut Self {
        self.cell(SQL_TEXT, v.len() as u32, v.as_ptr() as u32 as u64)
    }

    pub fn blob(&mut self, v: &'a [u8]) -> &mut Self {
        self.cell(SQL_BLOB, v.len() as u32, v.as_ptr() as u32 as u64)
    }

    /// Runs the script, in the mode `SQL_READ` or `SQL_WRITE`. The answer is
    /// rows, or with a status the text of the error. Capability `sql`.
    pub fn run<'o>(mut self, mode: u32, out: &'o mut [u8]) -> Result<Rows<'o>, (u32, &'o [u8])> {
        let cells = self.cells.address();
        let n = self.steps.len() / SQL_STEP_SIZE as usize;
        for step in self.steps.chunks_exact_mut(SQL_STEP_SIZE as usize) {
            let at = &mut step[SQL_STEP_SIZE as usize - 4..];
            let mut index = [0; 4];
            index.copy_from_slice(at);
            at.copy_from_slice(&(cells + u32::from_le_bytes(index)).to_le_bytes());
        }
        // SAFETY: the host reads the steps, the cells and what is borrowed, and
        // writes out.
        let answer = unsafe { import_sql(mode, self.steps.address(), n as u32, out.as_mut_ptr() as u32, out.len() as u32) };
        let out = &out[..(answer as u32 as usize).min(out.len())];
        match (answer >> 32) as u32 {
            SQL_DONE => Ok(Rows::new(out)),
            status => Err((status, out)),
        }
    }
}

impl<'a> Default for Script<'a> {
    fn default() -> Self {
        Script::new()
    }
}

/// The rows of an answer, and of the one whose status is `SQL_GUARD_FAILED`:
/// `next_row`, then its cells from left to right.
pub struct Rows<'a> {
    rest: &'a [u8],
    step: u32,
    columns: u32,
    left: u32, // cells
}

impl<'a> Rows<'a> {
    /// Reads the bytes of an answer.
    pub fn new(answer: &'a [u8]) -> Rows<'a> {
        Rows { rest: answer, step: 0, columns: 0, left: 0 }
    }

    /// The step that the row belongs to.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// The row's number of columns.
    pub fn columns(&self) -> u32 {
        self.columns
    }

    fn u32(&mut self) -> u32 {
        let (head, rest) = self.rest.split_at(4);
        self.rest = rest;
        u32::from_le_bytes([head[0], head[1], head[2], head[3]])
    }

    fn cell(&mut self) -> (u32, &'a [u8]) {
        if self.left == 0 || self.rest.len() < 8 {
            self.left = 0;
            return (SQL_NULL, &[]);
        }
        self.left -= 1;
        let kind = self.u32();
        let n = self.u32() as usize;
        let (value, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        (kind, value)
    }

    /// Goes to the next row. What was not read of the row before is passed over.
    pub fn next_row(&mut self) -> bool {
        while self.left > 0 {
            self.cell();
        }
        if self.rest.len() < 8 {
            return false;
        }
        self.step = self.u32();
        self.columns = self.u32();
        self.left = self.columns;
        true
    }

    fn number(&mut self, wanted: u32) -> u64 {
        match self.cell() {
            (kind, b) if kind == wanted && b.len() == 8 => u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            _ => 0,
        }
    }

    /// The next cell as an integer; 0 if it is none.
    pub fn int(&mut self) -> i64 {
        self.number(SQL_INT) as i64
    }

    /// The next cell as a floating-point number; 0 if it is none.
    pub fn float(&mut self) -> f64 {
        f64::from_bits(self.number(SQL_FLOAT))
    }

    /// The next cell as a text or blob.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        match self.cell() {
            (SQL_TEXT, b) | (SQL_BLOB, b) => Some(b),
            _ => None,
        }
    }
}
