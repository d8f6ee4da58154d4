//! Payload: what is appended.
//!
//! ```text
//!     random bytes  ├──────────────────────────────────────────────────┤
//!     append n of writer w     ├─ as long as its size ─┤   a window whose place follows from w and n
//! ```
//!
//! So each append carries bytes of its own, nothing is copied or drawn for it, and whoever reads it back knows what it must be: the
//! entry's frame has writer and sequence.
//!
//! Owns:   the mix of sizes, the bytes, which of them an append carries.
//! Never:  appends.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use loglog_client::{PackBuilder, PackError};
use loglog_proto::limits::PAYLOAD_BYTES_MAX;
use loglog_proto::response::Appended;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::payload_bytes;

/// Places at which a window may begin. A power of two; the bytes still fit into a processor's cache.
const PLACES: u64 = 1 << 20;

/// Sizes, and how often each is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mix(Vec<(usize, u32)>);

/// What all writers append.
#[derive(Clone, Debug)]
pub(super) struct Source {
    bytes: Bytes,
    mix: Mix,
    seed: u64,
    /// Events in one append; `None`: the append is one, unpacked.
    pack: Option<u32>,
}

impl FromStr for Mix {
    type Err = String;

    /// A size, or several with weights: `100:8,1 KiB:2`.
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains([',', ':']) {
            return Ok(Self(vec![(payload_bytes(text)?, 1)]));
        }
        let part = |part: &str| {
            let (size, weight) = part
                .rsplit_once(':')
                .ok_or_else(|| format!("'{part}' has no weight: write it as '100:8,1 KiB:2'"))?;
            let weight = weight.trim().parse::<u32>().ok().filter(|weight| (1..=1_000_000).contains(weight));
            let weight =
                weight.ok_or_else(|| format!("the weight in '{part}' is no number from 1 to 1000000"))?;
            Ok((payload_bytes(size)?, weight))
        };
        let parts = text.split(',').map(part).collect::<Result<Vec<_>, String>>()?;
        if parts.len() > 100 {
            return Err("a mix has at most 100 sizes".to_owned());
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(size, _)] = self.0[..] {
            return write!(f, "{size}");
        }
        for (at, (size, weight)) in self.0.iter().enumerate() {
            write!(f, "{}{size}:{weight}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Mix {
    /// One size.
    pub(super) fn one(size: usize) -> Self {
        Self(vec![(size, 1)])
    }

    /// The largest size.
    pub(super) fn max(&self) -> usize {
        self.0.iter().map(|(size, _)| *size).max().unwrap_or(0)
    }

    /// The mean size.
    pub(super) fn mean(&self) -> f64 {
        let (mut bytes, mut weights) = (0.0, 0.0);
        for (size, weight) in &self.0 {
            #[expect(clippy::cast_precision_loss, reason = "sizes are under 16 MiB")]
            let size = *size as f64;
            bytes += size * f64::from(*weight);
            weights += f64::from(*weight);
        }
        bytes / weights
    }

    fn pick(&self, draw: u64) -> usize {
        if let [(size, _)] = self.0[..] {
            return size;
        }
        let all: u64 = self.0.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = draw % all;
        for (size, weight) in &self.0 {
            let weight = u64::from(*weight);
            if at < weight {
                return *size;
            }
            at -= weight;
        }
        self.max()
    }
}

impl Source {
    /// Sizes of `mix`, so many of them packed into an append, all of it as `seed` says.
    ///
    /// # Errors
    /// A pack of the largest would be larger than an entry can be.
    pub(super) fn new(mix: Mix, pack: Option<u32>, seed: u64) -> Result<Self, String> {
        let places = usize::try_from(PLACES).map_err(|error| error.to_string())?;
        let mut bytes = vec![0; places + mix.max()];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        if let Some(events) = pack {
            // Each event has its length in front, and the pack a head: both are small.
            let packed = (mix.max() + 8).saturating_mul(events as usize) + 64;
            if packed > PAYLOAD_BYTES_MAX {
                return Err(format!(
                    "a pack of {events} events of {} bytes is larger than an entry can be ({PAYLOAD_BYTES_MAX} bytes)",
                    mix.max()
                ));
            }
        }
        Ok(Self { bytes: bytes.into(), mix, seed, pack })
    }

    /// Events in one append.
    pub(super) const fn events(&self) -> u32 {
        match self.pack {
            Some(events) => events,
            None => 1,
        }
    }

    /// The largest payload.
    pub(super) fn payload_max(&self) -> usize {
        self.pack.map_or(self.mix.max(), |events| (self.mix.max() + 8) * events as usize + 64)
    }

    /// What the `number`th append of `writer` carries, both counted from 0.
    pub(super) fn payload(&self, writer: u64, number: u64) -> Bytes {
        match self.pack {
            None => self.event(writer, number),
            Some(_) => self.packed(writer, number).unwrap_or_default(),
        }
    }

    fn packed(&self, writer: u64, number: u64) -> Result<Bytes, PackError> {
        let mut pack = PackBuilder::new();
        let events = u64::from(self.events());
        for event in number * events..(number + 1) * events {
            pack.push(&self.event(writer, event))?;
        }
        Ok(pack.finish())
    }

    /// A window of the bytes.
    fn event(&self, writer: u64, number: u64) -> Bytes {
        // An odd step comes to every place before it comes to one again.
        let place = (writer.wrapping_mul(0x9e37_79b9).wrapping_add(number.wrapping_mul(4093))) % PLACES;
        let place = usize::try_from(place).unwrap_or(0);
        let size = self.mix.pick(mixed(self.seed ^ writer.rotate_left(40) ^ number));
        self.bytes.slice(place..place + size)
    }

    /// Whether an entry holds what that append carried.
    pub(super) fn holds(&self, payload: &[u8], writer: u64, number: u64) -> bool {
        *payload == *self.payload(writer, number)
    }
}

/// Payload bytes of an entry at its place.
pub(super) fn payload_of(appended: &Appended) -> u64 {
    (appended.end - appended.offset).get().saturating_sub(loglog_proto::entry::OVERHEAD as u64)
}

/// Bits of `number` spread over all of the result (splitmix64).
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use loglog_client::{Offset, Pack};

    use super::*;

    fn mix(text: &str) -> Mix {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_mix_is_sizes_with_weights() {
        assert_eq!(mix("100"), Mix(vec![(100, 1)]));
        assert_eq!(mix("4 KiB"), Mix(vec![(4096, 1)]));
        assert_eq!(mix("100:8,1 KiB:2"), Mix(vec![(100, 8), (1024, 2)]));
        assert_eq!(mix("100:8, 1 KiB : 2").to_string(), "100:8,1024:2");
        assert!((mix("100:8,1 KiB:2").mean() - 284.8).abs() < 1e-9);
        assert_eq!(mix("100:8,1 KiB:2").max(), 1024);
        for (text, why) in [
            ("100:8,1 KiB", "has no weight"),
            ("100:0", "weight in '100:0'"),
            ("100:x", "weight in '100:x'"),
            ("16 MiB:1", "largest payload"),
            ("1 kib:1", "did you mean 'KiB'"),
            ("", "number"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_come_as_often_as_their_weights_say_and_the_same_each_time() {
        let source = Source::new(mix("100:8,1 KiB:2"), None, 7).unwrap();
        let sizes: Vec<usize> = (0..10_000).map(|number| source.payload(3, number).len()).collect();
        let small = sizes.iter().filter(|size| **size == 100).count();
        assert!((7800..8200).contains(&small), "{small}");
        let again = Source::new(mix("100:8,1 KiB:2"), None, 7).unwrap();
        assert!(sizes.iter().zip(0..).all(|(size, number)| again.payload(3, number).len() == *size));
    }

    #[test]
    fn an_append_holds_its_own_bytes_and_no_others() {
        let source = Source::new(Mix::one(16), None, 1).unwrap();
        for (writer, number) in [(0, 0), (0, 1), (1, 0), (3, 99_999)] {
            assert!(source.holds(&source.payload(writer, number), writer, number));
            assert!(!source.holds(&source.payload(writer, number), writer, number + 1));
            assert!(!source.holds(&source.payload(writer, number), writer + 1, number));
        }
    }

    #[test]
    fn a_pack_has_its_events() {
        let source = Source::new(Mix::one(100), Some(50), 1).unwrap();
        let events: Vec<_> = Pack::events(Offset::ZERO, &source.payload(2, 3)).unwrap().collect();
        assert_eq!(events.len(), 50);
        assert_eq!(events[7].1, source.event(2, 157));
        assert!(Source::new(Mix::one(1 << 20), Some(16), 1).unwrap_err().contains("larger than an entry"));
    }
}
