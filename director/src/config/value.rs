//! Building blocks of the YAML's structs: single values that know where they stand and what they should be.
//!
//! Every single value is kept as its text when the YAML is read and given its meaning afterwards, so that all
//! wrong values of a file are found at once, each with its place and in the same words.

use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

pub(super) use heartbeat::config::nearest;

use super::error::{Mistake, Place};

/// What a single value should be: its type after parsing, the words for it and its schema.
pub(super) trait Kind {
    /// The meaning of the text.
    type Parsed;

    /// What is expected, for people.
    fn expected() -> String;

    /// Its JSON Schema.
    fn schema() -> serde_json::Value;

    /// Gives the text its meaning.
    fn parse(text: &str) -> Result<Self::Parsed, Refusal>;
}

/// Why a text is not what it should be. The caller knows the text itself, where it stands and what was expected.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Why, if there is more to say than "is not".
    pub(super) why: Option<&'static str>,
    /// What to do.
    pub(super) help: Option<String>,
}

impl Refusal {
    pub(super) fn because(why: &'static str) -> Self {
        Self {
            why: Some(why),
            help: None,
        }
    }
}

/// A single value of a kind, as text.
#[derive(Debug)]
pub(super) struct Value<K> {
    pub(super) text: String,
    pub(super) place: Place,
    kind: PhantomData<K>,
}

impl<K: Kind> Value<K> {
    fn new(text: String, place: Place) -> Self {
        Self {
            text,
            place,
            kind: PhantomData,
        }
    }

    /// The meaning of the text. A text without gives a mistake.
    pub(super) fn read(&self, mistakes: &mut Vec<Mistake>) -> Option<K::Parsed> {
        match K::parse(&self.text) {
            Ok(parsed) => Some(parsed),
            Err(Refusal { why, help }) => {
                let found = match (self.text.as_str(), why) {
                    ("", _) => "no value stands here".to_owned(),
                    (text, None) => format!("found \"{text}\""),
                    (text, Some(why)) => format!("found \"{text}\": {why}"),
                };
                mistakes.push(Mistake {
                    place: self.place,
                    message: found,
                    expected: K::expected(),
                    help,
                });
                None
            }
        }
    }
}

impl<'de, K: Kind> Deserialize<'de> for Value<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, defined, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self::new(value, place(&defined)))
    }
}

impl<K: Kind> JsonSchema for Value<K> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(K::schema()).unwrap_or_default()
    }
}

/// A mapping or list, and where it begins.
#[derive(Debug)]
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

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A key that may be missing. A key that stands there without a value is not the same: that is a mistake.
#[derive(Debug)]
pub(super) struct Optional<T>(Option<T>);

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Deref for Optional<T> {
    type Target = Option<T>;

    fn deref(&self) -> &Option<T> {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Optional<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

impl<T: JsonSchema> JsonSchema for Optional<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Something that can be written as a single value or, with more to say, as a mapping.
#[derive(Debug)]
pub(super) enum ShortOrLong<K, T> {
    Short(Value<K>),
    Long(Located<T>),
}

impl<K, T> ShortOrLong<K, T> {
    /// Where it begins.
    pub(super) fn place(&self) -> Place {
        match self {
            ShortOrLong::Short(value) => value.place,
            ShortOrLong::Long(located) => located.place,
        }
    }
}

impl<'de, K: Kind, T: Deserialize<'de>> Deserialize<'de> for ShortOrLong<K, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, defined, .. } =
            Spanned::<TextOrMapping<T>>::deserialize(deserializer)?;
        let place = place(&defined);
        Ok(match value {
            TextOrMapping::Text(text) => ShortOrLong::Short(Value::new(text, place)),
            TextOrMapping::Mapping(value) => ShortOrLong::Long(Located { value, place }),
        })
    }
}

impl<K: Kind, T: JsonSchema> JsonSchema for ShortOrLong<K, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<T>();
        let mut schema = Schema::default();
        schema.insert("anyOf".to_owned(), serde_json::json!([K::schema(), long]));
        schema
    }
}

/// Something of which there can be one, written alone, or several in a list.
#[derive(Debug)]
pub(super) enum OneOrMore<K, T> {
    One(ShortOrLong<K, T>),
    More(Located<Vec<ShortOrLong<K, T>>>),
}

impl<K, T> OneOrMore<K, T> {
    /// All of them.
    pub(super) fn all(&self) -> &[ShortOrLong<K, T>] {
        match self {
            OneOrMore::One(one) => std::slice::from_ref(one),
            OneOrMore::More(list) => &list.value,
        }
    }

    /// Where it begins.
    pub(super) fn place(&self) -> Place {
        match self {
            OneOrMore::One(one) => one.place(),
            OneOrMore::More(list) => list.place,
        }
    }
}

impl<'de, K: Kind, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<K, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, defined, .. } =
            Spanned::<OneOrList<T, ShortOrLong<K, T>>>::deserialize(deserializer)?;
        let place = place(&defined);
        Ok(match value {
            OneOrList::One(TextOrMapping::Text(text)) => {
                OneOrMore::One(ShortOrLong::Short(Value::new(text, place)))
            }
            OneOrList::One(TextOrMapping::Mapping(value)) => {
                OneOrMore::One(ShortOrLong::Long(Located { value, place }))
            }
            OneOrList::List(value) => OneOrMore::More(Located { value, place }),
        })
    }
}

impl<K: Kind, T: JsonSchema> JsonSchema for OneOrMore<K, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<T>();
        let one = ShortOrLong::<K, T>::json_schema(generator);
        let mut schema = Schema::default();
        schema.insert(
            "anyOf".to_owned(),
            serde_json::json!([K::schema(), long, { "type": "array", "items": one }]),
        );
        schema
    }
}

/// One, or a list of `E`.
enum OneOrList<T, E> {
    One(TextOrMapping<T>),
    List(Vec<E>),
}

impl<'de, T: Deserialize<'de>, E: Deserialize<'de>> Deserialize<'de> for OneOrList<T, E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, E>(PhantomData<(T, E)>);

        impl<'de, T: Deserialize<'de>, E: Deserialize<'de>> Visitor<'de> for ListVisitor<T, E> {
            type Value = OneOrList<T, E>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a single value, a mapping of keys and values, or a list of them")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrList::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                EitherVisitor(PhantomData)
                    .visit_map(map)
                    .map(OneOrList::One)
            }

            fn visit_str<F: serde::de::Error>(self, text: &str) -> Result<Self::Value, F> {
                EitherVisitor(PhantomData)
                    .visit_str(text)
                    .map(OneOrList::One)
            }

            fn visit_i64<F: serde::de::Error>(self, value: i64) -> Result<Self::Value, F> {
                EitherVisitor(PhantomData)
                    .visit_i64(value)
                    .map(OneOrList::One)
            }

            fn visit_u64<F: serde::de::Error>(self, value: u64) -> Result<Self::Value, F> {
                EitherVisitor(PhantomData)
                    .visit_u64(value)
                    .map(OneOrList::One)
            }

            fn visit_f64<F: serde::de::Error>(self, value: f64) -> Result<Self::Value, F> {
                EitherVisitor(PhantomData)
                    .visit_f64(value)
                    .map(OneOrList::One)
            }

            fn visit_bool<F: serde::de::Error>(self, value: bool) -> Result<Self::Value, F> {
                EitherVisitor(PhantomData)
                    .visit_bool(value)
                    .map(OneOrList::One)
            }

            fn visit_unit<F: serde::de::Error>(self) -> Result<Self::Value, F> {
                EitherVisitor(PhantomData).visit_unit().map(OneOrList::One)
            }
        }

        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

enum TextOrMapping<T> {
    Text(String),
    Mapping(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOrMapping<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherVisitor(PhantomData))
    }
}

/// Takes a text or a mapping.
struct EitherVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EitherVisitor<T> {
    type Value = TextOrMapping<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a single value or a mapping of keys and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(TextOrMapping::Mapping)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(TextOrMapping::Text(text.to_owned()))
    }

    // What looks like something else than text: it is none of what may stand there, but the words
    // for that are the value's own.
    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(TextOrMapping::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(TextOrMapping::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(TextOrMapping::Text(value.to_string()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(TextOrMapping::Text(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(TextOrMapping::Text(String::new()))
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
