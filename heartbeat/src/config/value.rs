//! Building blocks of the YAML's structs: single values that know where they stand.
//!
//! Every single value is kept as its text when the YAML is read and given its meaning afterwards, so that all wrong values are
//! found at once, each with its place.

use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::error::Place;

/// A single value as text.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) place: Place,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, defined, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self {
            text: value,
            place: place(&defined),
        })
    }
}

/// A mapping or list, and where it begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, defined, .. } = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self {
            value,
            place: place(&defined),
        })
    }
}

/// A key that may be missing. A key that stands there without a value is not the same: that is a mistake.
#[derive(Clone, Debug)]
pub(super) struct Optional<T>(pub(super) Option<T>);

impl Optional<Text> {
    /// Where the value stands, or what it is missing in.
    pub(super) fn place_or(&self, place: Place) -> Place {
        self.0.as_ref().map_or(place, |text| text.place)
    }
}

impl<T> Optional<Located<Vec<T>>> {
    /// Whether no entry is written there, right or wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|list| list.value.is_empty())
    }
}

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Optional<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

/// Something that can be written as a single value or, with more to say, as a mapping.
#[derive(Clone, Debug)]
pub(super) enum ShortOrLong<T> {
    Short(Text),
    Long(Located<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ShortOrLong<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, defined, .. } = Spanned::<Either<T>>::deserialize(deserializer)?;
        let place = place(&defined);
        Ok(match value {
            Either::Text(text) => Self::Short(Text { text, place }),
            Either::Mapping(value) => Self::Long(Located { value, place }),
        })
    }
}

enum Either<T> {
    Text(String),
    Mapping(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Either<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherVisitor(PhantomData))
    }
}

struct EitherVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EitherVisitor<T> {
    type Value = Either<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a single value or a mapping of keys and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Either::Mapping)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Either::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Either::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Either::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Either::Text(value.to_string()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Either::Text(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Either::Text(String::new()))
    }
}

/// A place as the YAML reader gives it.
pub(super) fn place(location: &Location) -> Place {
    let known = |number: u64| usize::try_from(number).unwrap_or(0);
    Place {
        line: known(location.line()),
        column: known(location.column()),
    }
}
