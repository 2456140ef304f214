//! Taking layers off, from the outside in.
//!
//! `openssl enc` does not know a wrong pass phrase. The line beside the file does; without
//! it, a pass phrase under which nothing known comes out is a wrong one, and whatever
//! breaks after something known came out is damage.

use std::io::{self, Read};

use backstay_model::Secret;

use super::only_dump::OnlyDump;
use super::peeked::Peeked;
use super::source::{Source, Trouble};
use super::{DumpRead, LAYERS_MAX};
use crate::dump::content::{Recognised, recognise};
use crate::dump::hmac::Sidecar;
use crate::dump::openssl::{self, Derivation, look_inside};
use crate::dump::{DumpError, DumpInside, DumpLayer, gzip, openpgp, zstd};
use crate::{Error, Result};

/// What is looked at to say what something is: so much that a tar archive shows some of
/// its members.
const HEAD_BYTES: usize = 128 << 10;
/// What a dictionary of xz may take: `xz -9` has 64 MiB.
const XZ_MEMORY_MAX_BYTES: u64 = 80 << 20;

type Stream = Box<dyn Read + Send>;

/// A file without its layers.
pub(super) struct Peeled {
    pub layers: Vec<DumpLayer>,
    pub inside: DumpInside,
    pub reader: Stream,
    source: Source,
}

impl Peeled {
    /// What made a read fail.
    pub fn trouble(&self, file: &str) -> Error {
        told(file, &self.source)
    }

    /// The checks that come last, when the innermost reader is at its end.
    pub fn end(self, file: &str, raw_bytes: u64, sidecar: Option<&Sidecar>) -> Result<DumpRead> {
        let source = self.source.clone();
        let whole = self.source.whole().map_err(|_| told(file, &source))?;
        let is_authentic = match (&whole.hmac, sidecar) {
            (Some(tag), Some(sidecar)) if !sidecar.is_of(tag) => {
                return Err(damaged(
                    file,
                    whole.stored_bytes,
                    "it is not what its authentication was made for",
                ));
            }
            (Some(_), Some(_)) => true,
            _ => false,
        };
        Ok(DumpRead {
            raw_bytes,
            stored_bytes: whole.stored_bytes,
            sha256: hex::encode(whole.sha256),
            is_authentic,
        })
    }
}

fn damaged(file: &str, offset_bytes: u64, reason: impl Into<String>) -> Error {
    DumpError::Damaged { file: file.to_owned(), offset_bytes, reason: reason.into() }.into()
}

fn told(file: &str, source: &Source) -> Error {
    match source.take_trouble() {
        Some(Trouble::Unreadable(error)) => error.into(),
        Some(Trouble::Damaged { offset_bytes, reason }) => damaged(file, offset_bytes, reason),
        Some(Trouble::Unsupported(what)) => {
            DumpError::Unsupported { file: file.to_owned(), what: what.to_owned() }.into()
        }
        Some(Trouble::Several(what)) => DumpError::Several { file: file.to_owned(), what }.into(),
        Some(Trouble::Stopped) => Error::Cancelled,
        None => Error::broken("a dump that cannot be read says why"),
    }
}

/// A layer's reader that writes down what was wrong, where it was noticed first.
struct Layer {
    name: &'static str,
    inner: Stream,
    source: Source,
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => {}
            _ if is_too_large(error) => self.source.unsupported("more memory to unpack than it may have"),
            _ => self.source.damaged(|| reason(self.name, error)),
        })
    }
}

/// A decoder that would need a larger window or dictionary than it is allowed. For zstd
/// there is only the text of the library, which has been the same since its first version.
fn is_too_large(error: &io::Error) -> bool {
    let of_xz = error.get_ref().and_then(|cause| cause.downcast_ref::<liblzma::stream::Error>());
    matches!(of_xz, Some(liblzma::stream::Error::MemLimit))
        || error.to_string().starts_with("Frame requires too much memory")
}

fn reason(layer: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("the {layer} in it ends too early"),
        _ => format!("the {layer} in it is broken: {error}"),
    }
}

pub(super) fn peel(
    file: &str,
    source: Source,
    passphrase: Option<&Secret>,
    sidecar: Option<&Sidecar>,
) -> Result<Peeled> {
    let mut is_certain = false;
    if let (Some(passphrase), Some(sidecar)) = (passphrase, sidecar) {
        let wrong = || DumpError::WrongPassphrase { file: file.to_owned(), tried: 1 };
        source.authenticate(sidecar.open(passphrase).ok_or_else(wrong)?.context());
        is_certain = true;
    }
    let opener = Opener { file, source: &source, passphrase, is_certain };
    let mut layers: Vec<DumpLayer> = Vec::new();
    let mut stream: Stream = Box::new(source.clone());
    let mut under_armour = false;
    loop {
        let peeked = Peeked::look(stream, HEAD_BYTES);
        let recognised = recognise(peeked.head());
        if peeked.has_failed() && peeked.head().is_empty() {
            return Err(told(file, &source));
        }
        if under_armour && recognised != Recognised::Layer(DumpLayer::Openpgp) {
            source.damaged(|| "the OpenPGP text in it holds no encrypted message".to_owned());
            return Err(told(file, &source));
        }
        under_armour = recognised == Recognised::Armour;
        if layers.len() == LAYERS_MAX {
            let what = format!("more than {LAYERS_MAX} layers");
            return Err(DumpError::Unsupported { file: file.to_owned(), what }.into());
        }
        stream = match recognised {
            Recognised::Inside(inside) => {
                return Ok(Peeled { layers, inside, reader: Box::new(peeked), source });
            }
            Recognised::Armour => opener.layer("OpenPGP text", openpgp::armour_reader(Box::new(peeked))),
            Recognised::Layer(layer) => {
                layers.push(layer);
                opener.open(layer, peeked)?
            }
        };
    }
}

struct Opener<'a> {
    file: &'a str,
    source: &'a Source,
    passphrase: Option<&'a Secret>,
    /// The line beside the file knows the pass phrase.
    is_certain: bool,
}

impl Opener<'_> {
    fn layer(&self, name: &'static str, inner: Stream) -> Stream {
        Box::new(Layer { name, inner, source: self.source.clone() })
    }

    fn open(&self, layer: DumpLayer, packed: Peeked<Stream>) -> Result<Stream> {
        let fails = |name: &'static str, error: io::Error| {
            self.source.damaged(|| reason(name, &error));
            told(self.file, self.source)
        };
        Ok(match layer {
            DumpLayer::Openssl => self.openssl(packed)?,
            DumpLayer::Openpgp => self.openpgp(packed)?,
            DumpLayer::Gzip => self.layer("gzip", gzip::reader(Box::new(packed))),
            DumpLayer::Zstd => {
                let reader = zstd::reader(Box::new(packed)).map_err(|error| fails("zstd", error))?;
                self.layer("zstd", reader)
            }
            DumpLayer::Bzip2 => self.layer("bzip2", Box::new(bzip2::read::MultiBzDecoder::new(packed))),
            DumpLayer::Tar => {
                let Some(begun) = OnlyDump::begin(packed, self.source.clone()) else {
                    return Err(Error::broken("a dump that was seen in an archive is there"));
                };
                self.layer("tar", Box::new(begun.map_err(|error| fails("tar", error))?))
            }
            DumpLayer::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let decoder = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX_BYTES, flags);
                let decoder = decoder.map_err(|error| fails("xz", error.into()))?;
                self.layer("xz", Box::new(liblzma::read::XzDecoder::new_stream(packed, decoder)))
            }
        })
    }

    fn passphrase(&self, layer: DumpLayer) -> Result<&Secret, DumpError> {
        self.passphrase.ok_or_else(|| DumpError::PassphraseNeeded { file: self.file.to_owned(), layer })
    }

    fn wrong_passphrase(&self) -> Error {
        DumpError::WrongPassphrase { file: self.file.to_owned(), tried: 1 }.into()
    }

    fn openssl(&self, packed: Peeked<Stream>) -> Result<Stream> {
        let passphrase = self.passphrase(DumpLayer::Openssl)?;
        let head = packed.head();
        if head.len() < openssl::HEADER_BYTES + openssl::CIPHER_BLOCK_BYTES {
            // Unreadable rather than short, where that is known already.
            self.source.damaged(|| "the openssl in it ends too early".to_owned());
            return Err(told(self.file, self.source));
        }
        let mut found = self.is_certain.then_some(Derivation::TRIED[0]);
        for derivation in Derivation::TRIED {
            let inside = look_inside(head, packed.is_whole(), passphrase, derivation)
                .map_err(|_| Error::broken("AES-256-CBC takes what it is given"))?;
            if recognise(&inside).is_known() {
                found = Some(derivation);
                break;
            }
        }
        let derivation = found.ok_or_else(|| self.wrong_passphrase())?;
        let decryptor = openssl::Decryptor::begin(packed, passphrase, derivation)
            .map_err(|_| told(self.file, self.source))?;
        Ok(self.layer("openssl", Box::new(decryptor)))
    }

    fn openpgp(&self, packed: Peeked<Stream>) -> Result<Stream> {
        let passphrase = self.passphrase(DumpLayer::Openpgp)?;
        let head = packed.head().to_vec();
        match openpgp::reader(Box::new(packed), &head, passphrase) {
            Ok(reader) => Ok(self.layer("OpenPGP", reader)),
            Err(openpgp::Closed::Unsupported(what)) => {
                Err(DumpError::Unsupported { file: self.file.to_owned(), what }.into())
            }
            Err(openpgp::Closed::WrongPassphrase) if !self.is_certain => Err(self.wrong_passphrase()),
            Err(openpgp::Closed::WrongPassphrase) => {
                self.source.damaged(|| "the OpenPGP in it is broken: the key does not fit".to_owned());
                Err(told(self.file, self.source))
            }
            Err(openpgp::Closed::Damaged(text)) => {
                self.source.damaged(|| format!("the OpenPGP in it is broken: {text}"));
                Err(told(self.file, self.source))
            }
        }
    }
}
