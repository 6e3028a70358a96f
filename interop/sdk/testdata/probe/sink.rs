//! Uses all of the SDK and appends what came of it.
#![no_std]

use core::fmt::Write;

use audit_host::abi::*;
use audit_host::json::Value;
use audit_host::sql::{Rows, Script};
use audit_host::{host, Answer, Batch, Buffer, Sink};

struct Probe {
    url: Buffer,
    out: Buffer,
}

struct Text<'a>(&'a [u8]);

impl core::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        f.write_str(core::str::from_utf8(self.0).unwrap_or("?"))
    }
}

struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{:02x}", b))
    }
}

fn status<T>(r: Result<T, u32>) -> u32 {
    r.err().unwrap_or(STATUS_DONE)
}

impl Probe {
    fn events(&mut self, b: &Batch) -> core::fmt::Result {
        let o = &mut self.out;
        writeln!(o, "batch {} {} {} {} {} {}", b.id(), b.attempt(), b.len(), b.first_seq(), Hex(b.queue()), b.lines().len())?;
        for e in b.events() {
            write!(o, "event {} {} {} {} {} ", e.seq(), Text(e.id()), Text(e.agent()), Text(e.event_type()), Text(e.timestamp()))?;
            write!(o, "{} {} {} ", Text(e.key_id()), Text(e.level()), Text(e.payload()))?;
            write!(o, "{} {} {} ", Hex(e.payload_hash()), Hex(e.digest()), Hex(e.signature().unwrap_or(&[])))?;
            writeln!(o, "{} {}", e.minted() as u32, (host::sha256(e.payload())[..] == *e.payload_hash()) as u32)?;
        }
        Ok(())
    }

    fn small(&mut self) -> core::fmt::Result {
        let o = &mut self.out;
        let mut room = Buffer::zeroed(MAX_KV_VALUE as usize);
        write!(o, "kv {}", status(host::kv_set(b"k", b"value")))?;
        match host::kv_get(b"k", &mut room) {
            Ok(v) => write!(o, " 0 {}", Text(v))?,
            Err(s) => write!(o, " {}", s)?,
        }
        write!(o, " {} {}", status(host::kv_delete(b"k")), status(host::kv_delete(b"k")))?;
        writeln!(o, " {} 0 {}", status(host::kv_get(b"k", &mut room)), status(host::kv_set(b"", b"x")))?;
        let (mut a, mut b) = ([0; 16], [0; 16]);
        host::random(&mut a);
        host::random(&mut b);
        writeln!(o, "random {} {}", (a != b) as u32, (host::now() > 1_700_000_000_000_000_000) as u32)
    }

    fn database(&mut self, b: &Batch) -> core::fmt::Result {
        let o = &mut self.out;
        let mut room = Buffer::zeroed(65536);
        let mut s = Script::new();
        s.step(SQL_EXEC, "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b, c, d, e)", 0, 0);
        s.step(SQL_MANY, "INSERT INTO t (a, b, c, d, e) VALUES", 5, b.len() as u32);
        for e in b.events() {
            s.int(e.seq() as i64).text(e.id()).blob(e.payload_hash()).null().float(1.5);
        }
        s.step(SQL_QUERY, "SELECT a, b, c, d, e, -a FROM t ORDER BY a", 0, 0);
        match s.run(SQL_WRITE, &mut room) {
            Err((status, _)) => write!(o, "sql {}", status)?,
            Ok(mut r) => {
                write!(o, "sql 0")?;
                while r.next_row() {
                    write!(o, "\nrow {} {} {} {}", r.step(), r.columns(), r.int(), Text(r.bytes().unwrap_or(b"?")))?;
                    write!(o, " {} {}", Hex(r.bytes().unwrap_or(b"?")), r.bytes().unwrap_or(&[]).len())?;
                    write!(o, " {} {}", (r.float() * 2.0) as u32, -r.int())?;
                }
            }
        }
        let mut s = Script::new();
        s.step(SQL_GUARD, "SELECT count(*) FROM t", 1, 1).int(0);
        if let Err((status, found)) = s.run(SQL_READ, &mut room) {
            let mut r = Rows::new(found);
            write!(o, "\nguard {} {} {} {}", status, r.next_row() as u32, r.int(), r.int())?;
        }
        let mut s = Script::new();
        s.step(SQL_QUERY, "SELEC 1", 0, 0);
        if let Err((status, text)) = s.run(SQL_READ, &mut room) {
            write!(o, "\nwrong {} {}", status, Text(text))?;
        }
        writeln!(o)
    }

    fn request(&mut self, b: &Batch) -> core::fmt::Result {
        let o = &mut self.out;
        let mut room = Buffer::zeroed(65536);
        let mut head = Buffer::new();
        write!(head, "POST {}\nX-Probe: 1\n", Text(&self.url))?;
        if let Ok(a) = host::http(&head, b.lines(), &mut room) {
            write!(o, "http 0 {} {} {} {}", a.code, a.flags, a.redirects, a.full)?;
            write!(o, " {} {}", Text(a.field("x-answer").unwrap_or(b"?")), Text(a.field("x-none").unwrap_or(b"")))?;
            write!(o, " {}", Text(a.body))?;
        }
        if let Err((status, why)) = host::http(b"GET http://203.0.113.1/\n", b"", &mut room) {
            write!(o, "\nrefused {} {}", status, !why.is_empty() as u32)?;
        }
        writeln!(o)
    }
}

impl Sink for Probe {
    fn open(config: &[u8]) -> Result<Self, Answer> {
        let mut url = Buffer::new();
        for (key, value) in Value(config).object().ok_or_else(|| Answer::bad_config("no url"))? {
            if key != b"url" || !value.text(&mut url) {
                return Err(Answer::bad_config("no url"));
            }
        }
        host::log(LOG_INFO, "opened");
        Ok(Probe { url, out: Buffer::new() })
    }

    fn deliver(&mut self, b: &Batch) -> Answer {
        if b.attempt() == 99 {
            b.event(b.len());
        }
        if b.attempt() == 98 {
            return Answer::busy(7, "locked").because(REASON_LOCKED);
        }
        self.out.clear();
        if self.events(b).and(self.small()).and(self.database(b)).and(self.request(b)).is_err() {
            return Answer::reject("a format failed");
        }
        host::metric(METRIC_RACES, 3);
        if host::append(&self.out).is_err() {
            return Answer::retry(1000, "append");
        }
        if b.len() < 2 {
            return Answer::ok(b.len());
        }
        host::verdict(1, OUTCOME_REJECT, "not “this” one");
        let place = |i: usize| {
            let mut hash = [0; HASH_SIZE as usize];
            hash.copy_from_slice(b.event(i).digest());
            host::Place::new(b.event(i).seq(), hash, i == 0)
        };
        host::places(&[place(0), host::Place::NONE, place(2)]);
        Answer::partial(b.len() - 1)
    }

    fn flush(&mut self) -> Answer {
        host::log(LOG_WARN, "flushed");
        Answer::ok(0)
    }

    fn close(&mut self) -> Answer {
        host::log(LOG_ERROR, "closed");
        Answer::ok(0)
    }
}

audit_host::sink!(Probe);
