//! HTTP dates (RFC 9110 §5.6.7): one form out, three forms in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The first second that four digits of a year cannot say: 10000-01-01.
const TOO_LATE: u64 = 253_402_300_800;

const DAY: i64 = 86_400;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// Returns a time as an HTTP date, cut to whole seconds and to the years 1970 to 9999.
///
/// ```
/// use larder::page::rules::dates::http_date;
/// use std::time::{Duration, SystemTime};
///
/// let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
///
/// assert_eq!(http_date(time), "Tue, 14 Nov 2023 22:13:20 GMT");
/// ```
pub fn http_date(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let within = Duration::from_secs(since.as_secs().min(TOO_LATE - 1));
    httpdate::fmt_http_date(UNIX_EPOCH + within)
}

/// Reads an HTTP date in any of its three forms, or returns `None`.
///
/// The name of the weekday is not checked and the month's may be in any case; nothing else is forgiven. `now` is for the
/// old form with two digits of a year: one that would be more than fifty years ahead is in the past.
///
/// ```
/// use larder::page::rules::dates::parse_http_date;
/// use std::time::{Duration, SystemTime};
///
/// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
///
/// assert_eq!(parse_http_date("Tuesday, 14-Nov-23 22:13:20 GMT", now), Some(now));
/// assert_eq!(parse_http_date("tomorrow", now), None);
/// ```
pub fn parse_http_date(text: &str, now: SystemTime) -> Option<SystemTime> {
    imf_fixdate(text)
        .or_else(|| rfc_850(text, now))
        .or_else(|| asctime(text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &str) -> Option<SystemTime> {
    let (weekday, rest) = text.split_once(", ")?;
    let [day, month, year, time, "GMT"] = words(rest, ' ')? else {
        return None;
    };
    is_word(weekday, 3..=3)
        .then(|| date(number(year, 4)?, month, number(day, 2)?, time))
        .flatten()
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc_850(text: &str, now: SystemTime) -> Option<SystemTime> {
    let (weekday, rest) = text.split_once(", ")?;
    let [day, time, "GMT"] = words(rest, ' ')? else {
        return None;
    };
    let [day, month, year] = words(day, '-')?;
    let this_year = year_of(now);
    let mut year = this_year - this_year % 100 + number(year, 2)?;
    if year - this_year > 50 {
        year -= 100;
    }
    is_word(weekday, 6..=9)
        .then(|| date(year, month, number(day, 2)?, time))
        .flatten()
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &str) -> Option<SystemTime> {
    let (weekday, rest) = text.split_once(' ')?;
    let (month, rest) = rest.split_once(' ')?;
    let (day, rest) = rest.split_at_checked(2)?;
    let [time, year] = words(rest.strip_prefix(' ')?, ' ')?;
    let day = day
        .strip_prefix(' ')
        .map_or_else(|| number(day, 2), |digit| number(digit, 1))?;
    is_word(weekday, 3..=3)
        .then(|| date(number(year, 4)?, month, day, time))
        .flatten()
}

fn words<const N: usize>(text: &str, between: char) -> Option<[&str; N]> {
    text.split(between).collect::<Vec<_>>().try_into().ok()
}

fn is_word(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn date(year: i64, month: &str, day: i64, time: &str) -> Option<SystemTime> {
    let [hour, minute, second] = words(time, ':')?;
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    let month = MONTHS
        .iter()
        .zip(1..)
        .find(|(name, _)| name.eq_ignore_ascii_case(month))?
        .1;
    let there_is = (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && year > 0;
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    let apart = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(apart)
    } else {
        UNIX_EPOCH.checked_add(apart)
    };
    time.filter(|_| there_is)
}

fn days_in(year: i64, month: i64) -> i64 {
    let next = if month == 12 {
        days(year + 1, 1, 1)
    } else {
        days(year, month + 1, 1)
    };
    next - days(year, month, 1)
}

/// Counts the days from 1970-01-01, in the calendar that years have used since 1582, also before it.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year is counted from March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let since_march = (month + 9) % 12;
    let in_year = (153 * since_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year
        - 719_468
}

fn year_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let day = i64::try_from(since.as_secs().min(TOO_LATE)).map_or(0, |seconds| seconds / DAY);
    let guess = 1970 + day / 366;
    // Most years are shorter than 366 days, so the guess is too low, by the year 9999 by 17.
    (guess..guess + 20)
        .filter(|&year| days(year, 1, 1) <= day)
        .max()
        .unwrap_or(guess)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn every_date_written_is_read_back() {
        for seconds in (0..TOO_LATE).step_by(98_765_431) {
            let written = http_date(at(seconds));

            assert_eq!(
                parse_http_date(&written, at(0)),
                Some(at(seconds)),
                "{written}"
            );
        }
    }

    #[test]
    fn two_digits_of_a_year_are_at_most_fifty_years_ahead() {
        let now = at(1_700_000_000);
        let year = |text: &str| parse_http_date(text, now).map(year_of);

        assert_eq!(year("Sunday, 01-Jan-73 00:00:00 GMT"), Some(2073));
        assert_eq!(year("Sunday, 01-Jan-74 00:00:00 GMT"), Some(1974));
        assert_eq!(year("Sunday, 01-Jan-00 00:00:00 GMT"), Some(2000));
    }

    #[test]
    fn dates_that_do_not_exist_are_not_read() {
        for text in [
            "Sun, 29 Feb 2023 00:00:00 GMT",
            "Sun, 00 Jan 2023 00:00:00 GMT",
            "Sun, 01 Foo 2023 00:00:00 GMT",
            "Sun, 01 Jan 2023 24:00:00 GMT",
            "Sun, 01 Jan 0000 00:00:00 GMT",
            "Sun, 01 Jan +023 00:00:00 GMT",
            "Sun Nov 006 08:49:37 1994",
            "Sun \u{e9}\u{e9}",
        ] {
            assert_eq!(parse_http_date(text, at(0)), None, "{text}");
        }
        assert!(parse_http_date("Tue, 29 Feb 2000 00:00:00 GMT", at(0)).is_some());
    }

    #[test]
    fn times_no_date_can_say_are_cut() {
        assert_eq!(
            http_date(UNIX_EPOCH - Duration::from_secs(9)),
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
        assert_eq!(http_date(at(TOO_LATE + 5)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
