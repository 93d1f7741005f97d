//! Periods of the week, like `mon-fri 08:00-18:00`.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::config::value::{Kind, Refusal, nearest};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u16 = 24 * 60;

/// A period of the week. One that ends at or before the time that it begins at ends on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    /// A bit for each day that it begins on, Monday's the lowest.
    days: u8,
    /// Minute of the day that it begins at.
    from: u16,
    /// The first minute after it.
    until: u16,
}

impl Period {
    /// Whether a minute of a day is in it; days are counted from Monday, which is 0.
    #[must_use]
    pub fn contains(self, weekday: u8, minute: u16) -> bool {
        let begins_on = |day: u8| self.days & (1 << day) != 0;
        if self.from < self.until {
            return begins_on(weekday) && (self.from..self.until).contains(&minute);
        }
        let yesterday = (weekday + 6) % 7;
        begins_on(weekday) && minute >= self.from || begins_on(yesterday) && minute < self.until
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = DAYS.iter().enumerate();
        let days: Vec<&str> = named
            .filter(|(day, _)| self.days & (1 << day) != 0)
            .map(|(_, name)| *name)
            .collect();
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(
            f,
            "{} {}-{}",
            days.join(","),
            time(self.from),
            time(self.until)
        )
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Kind for Period {
    type Parsed = Self;

    fn expected() -> String {
        "days, times or both, like mon-fri 08:00-18:00, sat,sun or 22:00-06:00".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 64 })
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut words = text.split_ascii_whitespace();
        let (days, times) = match (words.next(), words.next(), words.next()) {
            (Some(days), Some(times), None) => (Some(days), Some(times)),
            (Some(times), None, None) if times.starts_with(|it: char| it.is_ascii_digit()) => {
                (None, Some(times))
            }
            (Some(days), None, None) => (Some(days), None),
            _ => return Err(Refusal::default()),
        };
        let (from, until) = times.map_or(Ok((0, DAY_MINUTES)), parse_times)?;
        Ok(Self {
            days: days.map_or(Ok(0x7f), parse_days)?,
            from,
            until,
        })
    }
}

/// Days and ranges of days, which may go over the end of the week.
fn parse_days(text: &str) -> Result<u8, Refusal> {
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (parse_day(first)?, parse_day(last)?);
        days |= 1 << day;
        while day != last {
            day = (day + 1) % 7;
            days |= 1 << day;
        }
    }
    Ok(days)
}

fn parse_day(text: &str) -> Result<u8, Refusal> {
    let day = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    day.and_then(|day| u8::try_from(day).ok())
        .ok_or_else(|| Refusal {
            why: Some("it names a day that there is not"),
            help: nearest(text, DAYS).map(|day| format!("did you mean \"{day}\"?")),
        })
}

fn parse_times(text: &str) -> Result<(u16, u16), Refusal> {
    let (from, until) = text.split_once('-').ok_or_else(Refusal::default)?;
    let (from, until) = (parse_time(from)?, parse_time(until)?);
    if from == DAY_MINUTES {
        return Err(Refusal::because("nothing begins at 24:00"));
    }
    if from == until {
        return Err(Refusal::because("it ends when it begins"));
    }
    Ok((from, until))
}

/// A minute of the day, up to 24:00.
fn parse_time(text: &str) -> Result<u16, Refusal> {
    let number = |digits: &str| {
        let fits = digits.len() == 2 && digits.bytes().all(|it| it.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| fits)
    };
    let (hour, minute) = text.split_once(':').ok_or_else(Refusal::default)?;
    let (Some(hour), Some(minute)) = (number(hour), number(minute)) else {
        return Err(Refusal::default());
    };
    if minute > 59 || hour * 60 + minute > DAY_MINUTES {
        return Err(Refusal::because("a day has no such time"));
    }
    Ok(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MON: u8 = 0;
    const FRI: u8 = 4;
    const SAT: u8 = 5;
    const SUN: u8 = 6;

    #[test]
    fn what_is_within() {
        // (period, day, hour, minute, whether it is within)
        let cases = [
            ("mon-fri 08:00-18:00", MON, 8, 0, true),
            ("mon-fri 08:00-18:00", FRI, 17, 59, true),
            ("mon-fri 08:00-18:00", FRI, 18, 0, false),
            ("mon-fri 08:00-18:00", MON, 7, 59, false),
            ("mon-fri 08:00-18:00", SAT, 12, 0, false),
            ("sat,sun", SAT, 0, 0, true),
            ("sat,sun", SUN, 23, 59, true),
            ("sat,sun", MON, 0, 0, false),
            ("SAT", SAT, 12, 0, true),
            ("sat-mon 00:00-24:00", MON, 23, 59, true),
            ("sat-mon", FRI, 23, 59, false),
            ("22:00-06:00", MON, 22, 0, true),
            ("22:00-06:00", MON, 5, 59, true),
            ("22:00-06:00", MON, 6, 0, false),
            // A night belongs to the day that it begins on.
            ("fri 22:00-06:00", SAT, 5, 0, true),
            ("fri 22:00-06:00", FRI, 5, 0, false),
            ("sun 22:00-06:00", MON, 5, 0, true),
            ("fri 18:00-00:00", FRI, 23, 59, true),
            ("fri 18:00-00:00", SAT, 0, 0, false),
            ("mon,wed-thu,sun", 3, 1, 1, true),
            ("mon,wed-thu,sun", 1, 1, 1, false),
        ];
        for (text, weekday, hour, minute, expected) in cases {
            let period = Period::parse(text).unwrap_or_else(|why| panic!("{text}: {why:?}"));
            let found = period.contains(weekday, hour * 60 + minute);
            assert_eq!(found, expected, "{text} on {weekday} at {hour}:{minute}");
            let again = Period::parse(&period.to_string());
            assert_eq!(again.ok(), Some(period), "{text}: {period}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "mon-",
            "-fri",
            "mon fri",
            "monday 08:00-18:00",
            "mon-fri 8-18",
            "mon-fri 08:00",
            "mon-fri 08:00-24:01",
            "mon-fri 24:00-08:00",
            "mon 08:60-09:00",
            "mon 8:00-9:00",
            "mon 08:00-08:00",
            "mon 08:00-18:00 utc",
            "08:00-18:00 mon",
            "mon,,tue",
        ] {
            assert!(Period::parse(text).is_err(), "{text}");
        }
    }
}
