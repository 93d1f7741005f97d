//! Lines over a number of flows, as an SVG: flows in powers of two to the right, nanoseconds in powers of ten upwards. (What
//! goes through the kernel's stack is tens of times dearer than what does not: on one even scale nothing could be told apart.)

use std::fmt::Write as _;

/// A line: its name, and its points.
pub type Line = (String, Vec<(f64, f64)>);

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Where the names of the lines stand.
const NAMES: f64 = 260.0;
/// What is cheaper, or no dearer than an empty program, stands here, in nanoseconds.
const LEAST: f64 = 1.0;
/// Told apart by people who do not see colours alike (Okabe and Ito, "Color Universal Design", 2008).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// Draws; none without a point.
#[must_use]
pub fn svg(title: &str, lines: &[Line]) -> Option<String> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let flows = points().map(|(flows, _)| flows.max(1.0).log2());
    let (from, to) = flows.fold(None, |range: Option<(f64, f64)>, flows| {
        let (from, to) = range.unwrap_or((flows, flows));
        Some((from.min(flows), to.max(flows)))
    })?;
    let costs = points().map(|(_, cost)| cost.max(LEAST));
    let (lowest, highest) = costs.fold((f64::MAX, LEAST), |(lowest, highest), cost| {
        (lowest.min(cost), highest.max(cost))
    });
    let marks = marks(lowest, highest);
    let (bottom, top) = (marks[0].log10(), marks[marks.len() - 1].log10());
    let right = WIDTH - NAMES;
    let x = |flows: f64| {
        let share = if to > from {
            (flows.max(1.0).log2() - from) / (to - from)
        } else {
            0.5
        };
        LEFT + share * (right - LEFT)
    };
    let y = |cost: f64| {
        let share = (cost.max(LEAST).log10() - bottom) / (top - bottom);
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    };

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    for value in marks {
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let mut counts: Vec<f64> = points().map(|(flows, _)| *flows).collect();
    counts.sort_by(f64::total_cmp);
    counts.dedup();
    for mark in counts {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(mark),
            HEIGHT - BOTTOM + 18.0,
            count(mark)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">flows</text>\
         <text x=\"14\" y=\"{:.1}\" transform=\"rotate(-90 14 {:.1})\" text-anchor=\"middle\">ns a packet, above an empty program</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 10.0,
        HEIGHT / 2.0,
        HEIGHT / 2.0
    );
    for (nth, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[nth % COLOURS.len()];
        // Beyond the colours, by strokes.
        let dashes = if nth < COLOURS.len() { "none" } else { "6 4" };
        let path: Vec<String> = points
            .iter()
            .map(|(flows, value)| format!("{:.1},{:.1}", x(*flows), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
            path.join(" ")
        );
        for (flows, value) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*flows),
                y(*value)
            );
        }
        let at = TOP + 18.0 * (nth as f64 + 0.5);
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            right + 16.0,
            right + 40.0,
            at - 4.0,
            at - 4.0,
            right + 46.0,
            at,
            escaped(name)
        );
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Costs at which horizontal lines stand: 1, 2 and 5 times powers of ten, from one below the lowest cost to one above the
/// highest. Never fewer than two.
fn marks(lowest: f64, highest: f64) -> Vec<f64> {
    let all = (0..12).flat_map(|power| [1.0, 2.0, 5.0].map(|times| times * 10_f64.powi(power)));
    let all: Vec<f64> = all.collect();
    let from = all.iter().rposition(|mark| *mark <= lowest).unwrap_or(0);
    let to = all.iter().position(|mark| *mark >= highest);
    let to = to.unwrap_or(all.len() - 1).max(from + 1);
    all[from.min(all.len() - 2)..=to.min(all.len() - 1)].to_vec()
}

/// A number of flows as people write it.
fn count(flows: f64) -> String {
    match flows {
        million if million >= 1e6 => format!("{:.0} M", million / 1e6),
        thousand if thousand >= 1e3 => format!("{:.0} k", thousand / 1e3),
        few => format!("{few:.0}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_enclose() {
        for (lowest, highest, expected) in [
            (20.0, 180.0, vec![20.0, 50.0, 100.0, 200.0]),
            (12.0, 12.0, vec![10.0, 20.0]),
            (10.0, 10.0, vec![10.0, 20.0]),
            (1.0, 1.0, vec![1.0, 2.0]),
            (
                40.0,
                3000.0,
                vec![20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0],
            ),
        ] {
            assert_eq!(marks(lowest, highest), expected, "{lowest} to {highest}");
        }
    }

    #[test]
    fn numbers_of_flows() {
        let shown = [1.0, 16_000.0, 1e6, 4e6].map(count);
        assert_eq!(shown, ["1", "16 k", "1 M", "4 M"]);
    }

    #[test]
    fn all_points_lie_inside() {
        let lines = vec![
            (
                "ours".to_owned(),
                vec![(1.0, 20.0), (16_000.0, 40.0), (1e6, 170.0)],
            ),
            ("a < b".to_owned(), vec![(1.0, -3.0), (1e6, 3000.0)]),
        ];
        let drawn = svg("cost & flows", &lines).expect("points");
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert_eq!(drawn.matches("<circle").count(), 5);
        assert!(drawn.contains("cost &amp; flows") && drawn.contains("a &lt; b"));
        let number = |text: &str| -> f64 {
            let text = text.split('"').next().expect("up to the quote");
            text.parse().expect("a number")
        };
        for at in drawn.split("cx=\"").skip(1).map(number) {
            assert!((LEFT..=WIDTH - NAMES).contains(&at), "{at}");
        }
        for at in drawn.split("cy=\"").skip(1).map(number) {
            assert!((TOP..=HEIGHT - BOTTOM).contains(&at), "{at}");
        }
        assert_eq!(svg("nothing", &[]), None);
    }
}
