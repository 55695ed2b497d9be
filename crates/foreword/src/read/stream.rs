//! A stream of records.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::Result;
use crate::read::reader::Reader;
use crate::read::record::Record;
use crate::read::tails::Tail;

impl Reader {
    /// The records from here on, as a stream that waits for more as
    /// [`next_async`](Reader::next_async) does. Each is copied out of the reader. (Feature
    /// `stream`.)
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use futures_core::Stream;
    /// use std::pin::pin;
    /// use std::task::{Context, Poll, Waker};
    /// log.commit("one")?;
    /// let mut records = pin!(log.reader().into_stream());
    /// let mut cx = Context::from_waker(Waker::noop()); // an executor has a better one
    /// assert!(matches!(records.as_mut().poll_next(&mut cx), Poll::Ready(Some(Ok(record))) if record.data == b"one"));
    /// assert!(records.as_mut().poll_next(&mut cx).is_pending());
    /// log.close()?;
    /// assert!(matches!(records.poll_next(&mut cx), Poll::Ready(None)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn into_stream(self) -> RecordStream {
        RecordStream { reader: self, tail: None, done: false }
    }
}

/// The records of a log as they become durable; see [`Reader::into_stream`]. Ends when the log was
/// closed and all of it is read, by whichever process closed it, or after an error.
#[derive(Debug)]
pub struct RecordStream {
    reader: Reader,
    tail: Option<Tail>,
    done: bool,
}

impl RecordStream {
    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Record>>> {
        loop {
            if let Some(tail) = &mut self.tail {
                let news = std::task::ready!(Pin::new(tail).poll(cx));
                self.tail = None;
                if !news? {
                    return Poll::Ready(Ok(None));
                }
            }
            if self.reader.next_is_readable()? {
                return Poll::Ready(self.reader.next().map(|record| record.map(Record::from)));
            }
            self.reader.attend();
            self.tail = Some(self.reader.tail());
        }
    }
}

impl futures_core::Stream for RecordStream {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(self.poll_record(cx)).transpose();
        self.done = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

impl futures_core::FusedStream for RecordStream {
    fn is_terminated(&self) -> bool {
        self.done
    }
}
