//! What this needs of etcd's gRPC: a put, several in one transaction, and who leads. The messages
//! are of a few fields each, so they are written and read here by hand.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use foreword_cluster::Bytes as Record;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A connection to one member. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection(Channel);

/// What a member says of itself.
pub(crate) struct Member {
    pub(crate) leads: bool,
    pub(crate) knows_a_leader: bool,
    /// How far its log is.
    pub(crate) index: u64,
}

impl Connection {
    /// Connects when it is used.
    pub(crate) fn new(address: &str) -> Connection {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Connection(endpoint.tcp_nodelay(true).connect_lazy())
    }

    async fn call(&self, path: &'static str, request: Bytes) -> Result<Bytes, Status> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(request);
        // A member without a leader says so at once, and does not wait for one.
        request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        Ok(grpc.unary(request, PathAndQuery::from_static(path), Raw).await?.into_inner())
    }

    /// Puts values under keys of eight bytes that count up. More than one is one transaction.
    pub(crate) async fn put(&self, key: u64, values: &[Record]) -> Result<(), Status> {
        if let [value] = values {
            return self.call("/etcdserverpb.KV/Put", put(key, value)).await.map(drop);
        }
        self.call("/etcdserverpb.KV/Txn", transaction(key, values)).await.map(drop)
    }

    pub(crate) async fn member(&self) -> Result<Member, Status> {
        let answer = self.call("/etcdserverpb.Maintenance/Status", Bytes::new()).await?;
        member(&answer).ok_or_else(|| Status::internal("not a status"))
    }
}

/// `PutRequest { key = 1, value = 2 }`
fn put(key: u64, value: &[u8]) -> Bytes {
    let mut to = BytesMut::with_capacity(value.len() + 24);
    field(&mut to, 1, &key.to_be_bytes());
    field(&mut to, 2, value);
    to.freeze()
}

/// `TxnRequest { success = 2: repeated RequestOp { request_put = 2 } }`, without a condition.
fn transaction(key: u64, values: &[Record]) -> Bytes {
    let mut to = BytesMut::new();
    for (key, value) in (key..).zip(values) {
        let mut operation = BytesMut::new();
        field(&mut operation, 2, &put(key, value));
        field(&mut to, 2, &operation);
    }
    to.freeze()
}

fn varint(to: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        to.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8(number as u8);
}

/// A field of bytes.
fn field(to: &mut BytesMut, number: u64, value: &[u8]) {
    varint(to, number << 3 | 2);
    varint(to, value.len() as u64);
    to.put_slice(value);
}

/// A field as it is read: a number, or bytes.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// The fields of a message; `None` if it is none.
fn fields(mut from: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut all = Vec::new();
    while !from.is_empty() {
        let tag = take_varint(&mut from)?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut from)?),
            2 => {
                let length = usize::try_from(take_varint(&mut from)?).ok()?;
                let (bytes, rest) = from.split_at_checked(length)?;
                from = rest;
                Value::Bytes(bytes)
            }
            _ => return None, // etcd's answers have no others.
        };
        all.push((tag >> 3, value));
    }
    Some(all)
}

fn number(all: &[(u64, Value<'_>)], number: u64) -> u64 {
    let found = all.iter().find_map(|(field, value)| match value {
        Value::Number(value) if *field == number => Some(*value),
        _ => None,
    });
    found.unwrap_or(0)
}

/// `StatusResponse { header = 1: { member_id = 2 }, leader = 4, raftIndex = 5 }`
fn member(answer: &[u8]) -> Option<Member> {
    let all = fields(answer)?;
    let header = all.iter().find_map(|(field, value)| match value {
        Value::Bytes(bytes) if *field == 1 => fields(bytes),
        _ => None,
    })?;
    let leader = number(&all, 4);
    Some(Member { leads: leader != 0 && leader == number(&header, 2), knows_a_leader: leader != 0, index: number(&all, 5) })
}

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_has_the_bytes_that_protobuf_gives_it() {
        let mut expected = vec![0x0a, 8, 0, 0, 0, 0, 0, 0, 1, 2, 0x12, 0x80, 1];
        expected.extend([7; 128]);
        assert_eq!(put(258, &[7; 128]), expected);
    }

    #[test]
    fn a_transaction_holds_its_puts_under_keys_that_count_up() {
        let all = transaction(5, &[Record::from_static(b"a"), Record::from_static(b"b")]);
        let operations = fields(&all).unwrap();
        assert_eq!(operations.len(), 2);
        for ((key, value), (number, operation)) in [(5, b"a"), (6, b"b")].into_iter().zip(&operations) {
            let Value::Bytes(operation) = operation else { panic!("a number") };
            let inner = fields(operation).unwrap();
            assert!(matches!(inner[..], [(2, Value::Bytes(bytes))] if bytes == put(key, value)));
            assert_eq!(*number, 2);
        }
    }

    #[test]
    fn who_leads_is_read_and_what_is_no_message_is_none() {
        let mut header = BytesMut::new();
        varint(&mut header, 1 << 3);
        varint(&mut header, 99);
        varint(&mut header, 2 << 3);
        varint(&mut header, u64::MAX - 4);
        let answer = |leader| {
            let mut answer = BytesMut::new();
            field(&mut answer, 1, &header);
            field(&mut answer, 2, b"3.4.23");
            varint(&mut answer, 4 << 3);
            varint(&mut answer, leader);
            varint(&mut answer, 5 << 3);
            varint(&mut answer, 300);
            answer
        };
        let own = member(&answer(u64::MAX - 4)).unwrap();
        assert!(own.leads && own.knows_a_leader && own.index == 300);
        let other = member(&answer(7)).unwrap();
        assert!(!other.leads && other.knows_a_leader);
        let none = member(&answer(0)).unwrap();
        assert!(!none.leads && !none.knows_a_leader);
        for wrong in [&[0x0a, 200][..], &[0xff; 11], &[0x0d, 1, 2, 3, 4], &[]] {
            assert!(member(wrong).is_none(), "{wrong:?}");
        }
    }
}
