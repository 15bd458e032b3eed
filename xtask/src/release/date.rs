//! Dates of the Gregorian calendar, in UTC.

/// Year, month and day of a time in seconds since 1970.
fn day(time: u64) -> (u64, u64, u64) {
    let (mut day, mut year) = (time / 86_400, 1970);
    loop {
        let length = 365 + u64::from(leap(year));
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    for month in 1.. {
        let length = match month {
            2 => 28 + u64::from(leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    unreachable!("a day is in a month of its year")
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn clock(time: u64) -> String {
    let time = time % 86_400;
    format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

/// As RFC 3339 has it.
pub(super) fn rfc3339(time: u64) -> String {
    let (year, month, day) = day(time);
    format!("{year:04}-{month:02}-{day:02}T{}Z", clock(time))
}

/// As RFC 5322 has it, for a Debian changelog.
pub(super) fn rfc5322(time: u64) -> String {
    let (year, month, day) = day(time);
    // The first day of 1970 was a Thursday.
    let week = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let weekday = week[usize::try_from(time / 86_400 % 7).unwrap_or_default()];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[usize::try_from(month - 1).unwrap_or_default()];
    format!("{weekday}, {day:02} {month} {year} {} +0000", clock(time))
}

#[cfg(test)]
mod tests {
    use super::{rfc3339, rfc5322};

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(rfc5322(1_795_786_553), "Fri, 27 Nov 2026 13:35:53 +0000");
    }
}
