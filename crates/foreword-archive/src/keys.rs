//! Encryption: AES-256-GCM, with a key for each object.
//!
//! A pair of key and nonce is used once. The nonce is the number of a block within its object, and
//! the key of an object comes from the archive's key and 128 random bits (HKDF-SHA-256), so that
//! two archivers, or a copied machine, do not share one.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{digest, hkdf};

use crate::error::{Error, Result};

/// A key, of 32 bytes. It is shown by its id only.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    bytes: [u8; 32],
    id: KeyId,
}

/// Which key: the first 8 bytes of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Key {
        let mut id = [0; 8];
        id.copy_from_slice(&digest::digest(&digest::SHA256, &bytes).as_ref()[..8]);
        Key { bytes, id: KeyId(id) }
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`Error::Key`] if the system has no random numbers.
    pub fn generate() -> Result<Key> {
        Ok(Key::new(random()?))
    }

    /// A key as text: 64 hexadecimal digits, with spaces around them.
    ///
    /// # Errors
    /// [`Error::Key`]; the text is not shown.
    pub fn parse(text: &str) -> Result<Key> {
        let why = || Error::Key { why: "a key is 64 hexadecimal digits, as `foreword-archive keygen` makes them".into() };
        unhex(text.trim()).map(Key::new).ok_or_else(why)
    }

    /// The key as text, to be kept in a safe place: without it the archive cannot be read.
    #[must_use]
    pub fn to_text(&self) -> String {
        hex(&self.bytes)
    }

    /// Its id, which stands in the objects that it encrypts.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The key of one object.
    pub(crate) fn of_object(&self, salt: &[u8; 16]) -> Result<ObjectKey> {
        let failed = |_| Error::Key { why: "the key of an object cannot be derived".into() };
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.bytes);
        let derived = derived.expand(&[b"foreword-archive object"], &AES_256_GCM).map_err(failed)?;
        Ok(ObjectKey(LessSafeKey::new(UnboundKey::from(derived))))
    }
}

/// The keys of an archive: the first encrypts, all decrypt. Empty: nothing is encrypted.
#[derive(Clone, Debug, Default)]
pub struct Keys(pub Vec<Key>);

impl Keys {
    /// The key that encrypts.
    pub(crate) fn newest(&self) -> Option<&Key> {
        self.0.first()
    }

    pub(crate) fn get(&self, id: KeyId) -> Result<&Key> {
        let missing = || Error::Key { why: format!("key {id} is needed to read the archive, and was not given") };
        self.0.iter().find(|key| key.id == id).ok_or_else(missing)
    }
}

pub(crate) struct ObjectKey(LessSafeKey);

impl ObjectKey {
    /// Encrypts a block of an object, and appends the tag.
    pub(crate) fn seal(&self, block: u32, about: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
        let failed = |_| Error::Key { why: "a block cannot be encrypted".into() };
        self.0.seal_in_place_append_tag(nonce(block), Aad::from(about), bytes).map_err(failed)
    }

    /// Decrypts one; `None` if it is not what was encrypted.
    pub(crate) fn open(&self, block: u32, about: &[u8], mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let plain = self.0.open_in_place(nonce(block), Aad::from(about), &mut bytes).ok()?.len();
        bytes.truncate(plain);
        Some(bytes)
    }
}

fn nonce(block: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..4].copy_from_slice(&block.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let failed = |_| Error::Key { why: "the system has no random numbers".into() };
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).map_err(failed)?;
    Ok(bytes)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Bytes as hexadecimal digits, in JSON.
pub(crate) mod as_hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::hex(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(from)?;
        super::unhex(&text).ok_or_else(|| serde::de::Error::custom(format!("{N} bytes in hexadecimal digits are expected")))
    }
}
