//! The picture: how each subject stands against the official client, a bar for each in every case.

use std::fmt::Write;

use crate::results::{Results, Runs, Sample, ratio};

/// Against whom the others stand; where it was not measured, the first subject that was.
const AGAINST: &str = "official-rust";
/// One for each subject, in their order.
const COLOURS: [&str; 9] = [
    "#1f6f8b", "#e07a3f", "#8a8d91", "#5b8c3a", "#b5487a", "#c9a227", "#6a5acd", "#2aa198",
    "#7a4a2b",
];
const LEFT: f64 = 190.0;
const WIDTH: f64 = 330.0;
const GAP: f64 = 60.0;
const BAR: f64 = 9.0;
const HEAD: f64 = 34.0;
/// The axis goes from 1/100 to 100.
const DECADES: f64 = 2.0;

/// What a column of bars shows.
struct Column {
    title: &'static str,
    value: fn(&Sample) -> f64,
}

const COLUMNS: [Column; 2] = [
    Column {
        title: "messages per second (more is better)",
        value: Sample::speed,
    },
    Column {
        title: "client CPU per message (less is better)",
        value: Sample::cpu_us_per_msg,
    },
];

/// Draws all brokers, one below the other.
pub fn svg(results: &Results) -> String {
    let mut body = String::new();
    let mut y = legend(&mut body, results);
    for broker in &results.brokers {
        y = panel(&mut body, results, broker, y);
    }
    let width = LEFT + 2.0 * WIDTH + GAP + 60.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{y}\" viewBox=\"0 0 {width} {y}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// The names of the subjects; gives the place below.
fn legend(out: &mut String, results: &Results) -> f64 {
    let (mut x, mut y) = (16.0, 20.0);
    for (subject, colour) in results.subjects.iter().zip(COLOURS.iter().cycle()) {
        if x > LEFT + 2.0 * WIDTH {
            (x, y) = (16.0, y + 18.0);
        }
        rect(out, x, y - 9.0, 10.0, 10.0, colour);
        text(out, x + 15.0, y, "start", subject);
        x += 130.0;
    }
    y + 12.0
}

/// The bars of one broker; gives the place below.
fn panel(out: &mut String, results: &Results, broker: &str, top: f64) -> f64 {
    let is_there = |subject: &&&str| {
        let mut works = 0..results.works.len();
        works.any(|n| measured(results, n, broker, subject).is_some())
    };
    let official = results.subjects.iter().find(|name| **name == AGAINST);
    let Some(against) = official
        .filter(is_there)
        .or_else(|| results.subjects.iter().find(is_there))
    else {
        return top;
    };
    let title = format!("Broker {broker}, ratios to {against}");
    let _ = writeln!(
        out,
        "<text x=\"16\" y=\"{}\" font-size=\"14\" font-weight=\"bold\">{}</text>",
        top + 20.0,
        escaped(&title)
    );
    let begin = top + HEAD + 16.0;
    let mut y = begin;
    for (n, work) in results.works.iter().enumerate() {
        let height = BAR * results.subjects.len() as f64;
        let (name, in_flight, partitions) = (work.case.name(), work.in_flight, work.partitions);
        let label = format!("{name} {in_flight} / {partitions}");
        text(out, LEFT - 8.0, y + height / 2.0 + 4.0, "end", &label);
        for (place, subject) in results.subjects.iter().enumerate() {
            let (Some(one), Some(other)) = (
                measured(results, n, broker, subject),
                measured(results, n, broker, against),
            ) else {
                continue;
            };
            for (column, left) in COLUMNS.iter().zip([LEFT, LEFT + WIDTH + GAP]) {
                if let Some(ratio) = ratio(one, other, column.value) {
                    let y = y + place as f64 * BAR;
                    bar(out, left, y, ratio, COLOURS[place % COLOURS.len()]);
                }
            }
        }
        y += height + 8.0;
    }
    for (column, left) in COLUMNS.iter().zip([LEFT, LEFT + WIDTH + GAP]) {
        text(
            out,
            left + WIDTH / 2.0,
            begin - 18.0,
            "middle",
            column.title,
        );
        for (ratio, label) in [
            (0.01, "1/100"),
            (0.1, "1/10"),
            (1.0, "1 x"),
            (10.0, "10 x"),
            (100.0, "100 x"),
        ] {
            let x = left + across(ratio);
            let colour = if ratio == 1.0 { "#333" } else { "#ddd" };
            let _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\"/>",
                begin - 3.0
            );
            text(out, x, begin - 5.0, "middle", label);
        }
    }
    y + 14.0
}

/// The runs of a subject that went well.
fn measured<'r>(
    results: &'r Results,
    work: usize,
    broker: &str,
    subject: &str,
) -> Option<&'r Runs> {
    let key = (work, broker, subject);
    let runs = results.runs.iter().find(|(found, _)| **found == key);
    let good = |runs: &&Runs| runs.error.is_none() && !runs.samples.is_empty();
    runs.map(|(_, runs)| runs).filter(good)
}

/// A bar from 1 to the ratio, with its number.
fn bar(out: &mut String, left: f64, y: f64, ratio: f64, colour: &str) {
    let (one, end) = (across(1.0), across(ratio));
    let (from, to) = if end < one { (end, one) } else { (one, end) };
    rect(out, left + from, y, (to - from).max(1.0), BAR - 1.0, colour);
    let (x, anchor) = match end < one {
        true => (left + from - 3.0, "end"),
        false => (left + to + 3.0, "start"),
    };
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"8\" text-anchor=\"{anchor}\">{}</text>",
        y + BAR - 2.0,
        number(ratio)
    );
}

/// Where a ratio lies on the axis, which is logarithmic.
fn across(ratio: f64) -> f64 {
    let decades = ratio.log10().clamp(-DECADES, DECADES);
    WIDTH * (decades + DECADES) / (2.0 * DECADES)
}

/// Three digits.
fn number(ratio: f64) -> String {
    match ratio {
        0.0..0.0995 => format!("{ratio:.3}"),
        0.0995..9.95 => format!("{ratio:.2}"),
        _ => format!("{ratio:.1}"),
    }
}

fn rect(out: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::sample;
    use crate::work::{self, Size};

    #[test]
    fn each_ratio_is_a_bar_in_each_column() {
        let works = &work::all(Size::Quick)[..2];
        let mut results = Results {
            works,
            brokers: vec!["official"],
            subjects: vec!["libqueen-c", "official-rust"],
            runs: Default::default(),
        };
        for (n, subject, seconds) in [
            (0, "libqueen-c", 2.0),
            (0, "official-rust", 8.0),
            (1, "libqueen-c", 1.0),
        ] {
            let samples = vec![sample(seconds)];
            *results.runs((n, "official", subject)) = Runs {
                samples,
                error: None,
            };
        }
        let svg = svg(&results);
        let bars = svg.matches("height=\"8.0\"").count();
        assert_eq!(
            bars, 4,
            "the second case has nothing to stand against: {svg}"
        );
        assert!(svg.contains(">4.00<") && svg.contains("ratios to official-rust"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn the_axis_ends_somewhere() {
        assert_eq!(across(1.0), WIDTH / 2.0);
        assert_eq!(across(1e9), WIDTH);
        assert_eq!(across(0.0), 0.0);
        assert_eq!(
            (number(0.0312), number(1.0), number(31.0)),
            ("0.031".into(), "1.00".into(), "31.0".into())
        );
        assert_eq!(escaped("<a & b>"), "&lt;a &amp; b>");
    }
}
