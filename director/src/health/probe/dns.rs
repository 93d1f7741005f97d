//! A DNS question over UDP, over TCP where the answer is too long for that (RFC 1035, RFC 7766).

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Failure, FailureKind, Good, Reach};
use crate::config::{DnsProbe, DnsRecord};

/// The longest message there is.
const MESSAGE_BYTES: usize = 65_535;

pub(super) async fn probe(reach: &Reach, probe: &DnsProbe) -> Result<Good, Failure> {
    // Below 2^16.
    let id = RandomState::new().hash_one(&probe.name) as u16;
    let question = question(id, probe)?;
    let answer = over_udp(reach, &question, id).await?;
    let answer = if answer.metadata.truncation {
        over_tcp(reach, &question).await?
    } else {
        answer
    };
    judge(probe, id, &answer)
}

fn question(id: u16, probe: &DnsProbe) -> Result<Vec<u8>, Failure> {
    let local = |what: String| Failure::new(FailureKind::Local, what);
    let mut name = Name::from_str(&probe.name)
        .map_err(|error| local(format!("\"{}\" is no name: {error}", probe.name)))?;
    name.set_fqdn(true);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record_type(probe.record)));
    message
        .to_bytes()
        .map_err(|error| local(format!("this question cannot be made: {error}")))
}

fn record_type(record: DnsRecord) -> RecordType {
    match record {
        DnsRecord::A => RecordType::A,
        DnsRecord::Aaaa => RecordType::AAAA,
        DnsRecord::Cname => RecordType::CNAME,
        DnsRecord::Mx => RecordType::MX,
        DnsRecord::Ns => RecordType::NS,
        DnsRecord::Ptr => RecordType::PTR,
        DnsRecord::Soa => RecordType::SOA,
        DnsRecord::Srv => RecordType::SRV,
        DnsRecord::Txt => RecordType::TXT,
    }
}

async fn over_udp(reach: &Reach, question: &[u8], id: u16) -> Result<Message, Failure> {
    let socket = reach.datagrams().await?;
    socket
        .send(question)
        .await
        .map_err(|error| Failure::io("asking", &error))?;
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        let length = socket
            .recv(&mut buffer)
            .await
            .map_err(|error| Failure::io("waiting for the answer", &error))?;
        let answer = parse(buffer.get(..length).unwrap_or_default())?;
        // A late answer to another question, or somebody's guess.
        if answer.metadata.id == id {
            return Ok(answer);
        }
    }
}

async fn over_tcp(reach: &Reach, question: &[u8]) -> Result<Message, Failure> {
    let doing = "asking over TCP";
    let failed = |error: std::io::Error| Failure::io(doing, &error);
    let mut stream = reach.connect().await?;
    let length = u16::try_from(question.len())
        .map_err(|_| Failure::new(FailureKind::Local, "the question is too long"))?;
    let message = [&length.to_be_bytes()[..], question].concat();
    stream.write_all(&message).await.map_err(failed)?;
    let length = stream.read_u16().await.map_err(failed)?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    parse(&answer)
}

fn parse(bytes: &[u8]) -> Result<Message, Failure> {
    Message::from_bytes(bytes).map_err(|error| {
        let words = format!("the answer is no DNS message: {error}");
        Failure::new(FailureKind::Unexpected, words)
    })
}

fn judge(probe: &DnsProbe, id: u16, answer: &Message) -> Result<Good, Failure> {
    let unexpected = |words: String| Err(Failure::new(FailureKind::Unexpected, words));
    if answer.metadata.id != id || answer.metadata.message_type != MessageType::Response {
        return unexpected("what came is no answer to the question".to_owned());
    }
    if answer.metadata.response_code != ResponseCode::NoError {
        return unexpected(format!(
            "expected an answer for {}, got {}",
            probe.name, answer.metadata.response_code
        ));
    }
    let wanted_type = record_type(probe.record);
    let records: Vec<String> = answer
        .answers
        .iter()
        .filter(|record| record.record_type() == wanted_type)
        .map(|record| record.data.to_string())
        .collect();
    let Some(expected) = &probe.answer else {
        // A server whose zone did not load says NOERROR too.
        if records.is_empty() {
            return unexpected(format!("{} has no {wanted_type} record", probe.name));
        }
        return Ok(Good::new(format!("{} records", records.len())));
    };
    let plain = |text: &str| text.trim_matches('"').trim_end_matches('.').to_lowercase();
    if records
        .iter()
        .any(|record| plain(record) == plain(expected))
    {
        return Ok(Good::new(format!("{} is {expected}", probe.name)));
    }
    let found = if records.is_empty() {
        format!("no {wanted_type} record")
    } else {
        records.join(", ")
    };
    unexpected(format!(
        "expected {} to be {expected}, got {found}",
        probe.name
    ))
}
