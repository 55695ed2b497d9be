//! A stream of records.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::read::reader::Reader;
use crate::read::record::Record;
use crate::read::tails::Tail;
use crate::{Error, Lsn, Result};

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

/// The records of a log as they become durable; see [`Reader::into_stream`].
///
/// A cut is an item ([`Error::Cut`]), behind which the stream goes on with the records that are
/// there since. It ends behind any other error, and when the log was closed and all of it is read,
/// by whichever process closed it. [`into_reader`](RecordStream::into_reader) gives the reader back
/// then: to try again, to follow the log behind its next opening, or to
/// [`seek`](Reader::seek) behind records that were dropped.
#[derive(Debug)]
pub struct RecordStream {
    reader: Reader,
    tail: Option<Tail>,
    done: bool,
}

impl RecordStream {
    /// The LSN of the record that comes next, as [`Reader::position`].
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.reader.position()
    }

    /// The reader, which stands before the record that would have come next.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// # let next = |records: &mut foreword::RecordStream| {
    /// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     match futures_core::Stream::poll_next(std::pin::Pin::new(records), &mut cx) {
    /// #         std::task::Poll::Ready(next) => next,
    /// #         std::task::Poll::Pending => unreachable!(),
    /// #     }
    /// # };
    /// log.commit_batch(&["one", "two", "three"])?;
    /// let mut records = log.reader_at(foreword::Lsn(1)).into_stream();
    /// log.truncate_front(foreword::Lsn(3))?;
    /// assert!(matches!(next(&mut records), Some(Err(foreword::Error::Dropped { .. }))));
    /// let mut reader = records.into_reader();
    /// reader.seek(log.start_lsn()); // what is missing, the consumer gets elsewhere
    /// assert_eq!(next(&mut reader.into_stream()).unwrap()?.data, b"three");
    /// # log.close() }
    /// ```
    #[must_use]
    pub fn into_reader(self) -> Reader {
        self.reader
    }

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
        self.done = !matches!(item, Some(Ok(_) | Err(Error::Cut { .. })));
        Poll::Ready(item)
    }
}

impl futures_core::FusedStream for RecordStream {
    fn is_terminated(&self) -> bool {
        self.done
    }
}
