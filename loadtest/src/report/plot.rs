//! Line plots as inline SVG, without scripts or anything from outside.

use std::fmt::Write;

/// Size of a plot, in SVG units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// How many grid lines there are at most per axis.
const LINES: f64 = 5.0;

/// One line of a plot.
pub(super) struct Line {
    /// Its name in the legend.
    pub(super) name: &'static str,
    /// Its points by ascending x.
    pub(super) points: Vec<(f64, f64)>,
}

/// A figure with a title, a legend and a plot from zero.
pub(super) fn figure(title: &str, x_unit: &str, y_unit: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_max = points().map(|point| point.0).fold(0.0, f64::max);
    let y_max = points().map(|point| point.1).fold(0.0, f64::max);
    let (x_step, y_step) = (step(x_max), step(y_max));
    let (x_top, y_top) = (x_max.max(x_step), (y_max / y_step).ceil().max(1.0) * y_step);
    let x_at = |x: f64| LEFT + x / x_top * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| HEIGHT - BOTTOM - y / y_top * (HEIGHT - TOP - BOTTOM);
    let mut out = format!("<figure><figcaption><b>{title}</b>");
    // Writing to a string does not fail.
    for (at, line) in lines.iter().enumerate() {
        let _ = write!(out, " <span class=\"c{at}\">&#9644; {}</span>", line.name);
    }
    let _ = write!(
        out,
        "</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    );
    let mut y = 0.0;
    while y <= y_top * 1.000_001 {
        let at = y_at(y);
        let _ = write!(
            out,
            "<line class=\"g\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            short(y)
        );
        y += y_step;
    }
    let mut x = 0.0;
    while x <= x_top * 1.000_001 {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x_at(x),
            HEIGHT - BOTTOM + 16.0,
            short(x)
        );
        x += x_step;
    }
    for (at, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (x, y) in &line.points {
            let _ = write!(path, "{:.1},{:.1} ", x_at(*x), y_at(*y));
        }
        let _ = write!(out, "<polyline class=\"l{at}\" points=\"{}\"/>", path.trim_end());
    }
    let _ = write!(
        out,
        "<text x=\"{LEFT}\" y=\"10\">{y_unit}</text><text x=\"{:.1}\" y=\"{:.1}\" \
         text-anchor=\"end\">{x_unit}</text></svg></figure>",
        WIDTH - RIGHT,
        HEIGHT - 2.0
    );
    out
}

/// A round distance between grid lines for values up to `max`.
fn step(max: f64) -> f64 {
    if max <= 0.0 || !max.is_finite() {
        return 1.0;
    }
    let rough = max / LINES;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// A number in few characters.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_numbers_short() {
        assert_eq!([step(100.0), step(7.0), step(0.0)], [20.0, 2.0, 1.0]);
        assert!((step(0.03) - 0.01).abs() < 1e-9);
        assert_eq!([short(1500.0), short(0.25), short(2e6)], ["1.5k", "0.25", "2M"]);
    }

    #[test]
    fn points_lie_inside_the_plot() {
        let points = vec![(0.0, 0.0), (10.0, 123.0), (20.0, 7.0)];
        let svg = figure("t", "s", "ms", &[Line { name: "a", points }]);
        let line = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        for point in line.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT + 0.1).contains(&x));
            assert!((TOP..=HEIGHT - BOTTOM + 0.1).contains(&y));
        }
        assert!(figure("t", "s", "ms", &[]).ends_with("</figure>"));
    }
}
