//! Lines over a number of flows, as an SVG: flows in powers of two to the right, nanoseconds upwards.

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
    let highest = points().map(|(_, value)| *value).fold(0.0, f64::max);
    let step = step(highest);
    let top = (highest / step).ceil().max(1.0) * step;
    let right = WIDTH - NAMES;
    let x = |flows: f64| {
        let share = if to > from {
            (flows.max(1.0).log2() - from) / (to - from)
        } else {
            0.5
        };
        LEFT + share * (right - LEFT)
    };
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    let mut value = 0.0;
    while value <= top + step / 2.0 {
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            LEFT - 6.0,
            at + 4.0
        );
        value += step;
    }
    let mut marks: Vec<f64> = points().map(|(flows, _)| *flows).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
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

/// A round distance of the horizontal lines: about eight of them.
fn step(highest: f64) -> f64 {
    let rough = (highest / 8.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|times| times * power >= rough);
    times.unwrap_or(10.0) * power
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
    fn steps_are_round() {
        for (highest, expected) in [(8.0, 1.0), (100.0, 20.0), (185.0, 50.0), (425.0, 100.0)] {
            assert!((step(highest) - expected).abs() < 1e-9, "{highest}");
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
            ("a < b".to_owned(), vec![(1.0, 12.0), (1e6, 185.0)]),
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
