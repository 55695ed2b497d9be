//! Whom calls are to: the channel, the headers that each has, and what errors come of it.

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::{Asked, CALLS, HEADER_PROTOCOL, MESSAGE_MAX, PROTOCOL, Raw, together};
use crate::error::{Error, Result};

/// Whom a connection is to.
pub(super) struct Target {
    pub(super) channel: Channel,
    pub(super) address: String,
    pub(super) headers: MetadataMap,
}

impl Target {
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }

    pub(super) async fn grpc(&self) -> Result<Grpc<Channel>> {
        let mut grpc =
            Grpc::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX);
        match grpc.ready().await {
            Ok(()) => Ok(grpc),
            Err(error) => Err(Error::Unreachable { address: self.address.clone(), why: error_chain(&error) }),
        }
    }

    /// Makes calls: what is answered.
    pub(super) async fn calls(&self, requests: mpsc::UnboundedReceiver<Asked>) -> Result<Streaming<Bytes>> {
        let requests = self.request(together(requests));
        let answers = self.grpc().await?.streaming(requests, PathAndQuery::from_static(CALLS), Raw).await;
        Ok(answers.map_err(|status| self.error(status))?.into_inner())
    }

    pub(super) fn error(&self, status: Status) -> Error {
        let theirs = status.metadata().get(HEADER_PROTOCOL).and_then(|version| version.to_str().ok());
        match status.code() {
            // A refusal before anything was read.
            Code::FailedPrecondition | Code::Unimplemented if theirs.is_some_and(|theirs| theirs != PROTOCOL) => {
                Error::Protocol { ours: theirs.unwrap_or_default().to_owned(), theirs: PROTOCOL.to_owned() }
            }
            Code::FailedPrecondition if !status.details().is_empty() => {
                postcard::from_bytes(status.details()).unwrap_or_else(|_| Error::unknown(status.message()))
            }
            // hyper says so where no connection could be made.
            Code::Unavailable if never_sent(&status) => {
                Error::Unreachable { address: self.address.clone(), why: error_chain(&status) }
            }
            _ => Error::unknown(format!("{}: {}", self.address, error_chain(&status))),
        }
    }
}

/// Whether a connection could not be made, so that nothing was sent.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.downcast_ref::<tonic::ConnectError>().is_some() {
            return true;
        }
        source = error.source();
    }
    false
}

/// An error with what it came from: transports say the useful part last.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = error.source();
    }
    said
}
