//! Charts as SVG: inside a page, where colours are classes of its style sheet, or as files of their own.

use crate::error::{Error, Result};
use std::fmt::Write;
use std::path::Path;

/// The colour of what should be, dashed.
pub(crate) const IDEAL: usize = 10;

/// A chart with two axes.
///
/// ```no_run
/// # fn main() -> mappa::Result<()> {
/// let mut chart = mappa::chart::Chart::new("Squares", "x", (0.0, 3.0), (0.0, 9.0));
/// chart.line("x^2", 0, &[(0.0, 0.0), (1.0, 1.0), (2.0, 4.0), (3.0, 9.0)]);
/// chart.save("squares.svg")?;
/// # Ok(()) }
/// ```
pub struct Chart {
    title: String,
    label: String,
    x: (f64, f64),
    y: (f64, f64),
    marks: String,
    legend: Vec<(String, usize)>,
    /// Values of y are powers of ten.
    logarithmic: bool,
}

/// Size of a chart, and room for its axes: left, right, top, bottom.
const SIZE: (f64, f64) = (420.0, 260.0);
const ROOM: (f64, f64, f64, f64) = (48.0, 12.0, 10.0, 34.0);

impl Chart {
    /// With a title, the name of the horizontal axis, and the ranges of both.
    pub fn new(title: &str, label: &str, x: (f64, f64), y: (f64, f64)) -> Self {
        Chart { title: title.into(), label: label.into(), x, y, marks: String::new(), legend: Vec::new(), logarithmic: false }
    }

    /// Values of y are logarithms to the base of ten.
    #[must_use]
    pub fn logarithmic(mut self) -> Self {
        self.logarithmic = true;
        self
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = |v: f64, (low, high): (f64, f64)| (v - low) / (high - low).max(1e-12);
        let (wide, tall) = (SIZE.0 - ROOM.0 - ROOM.1, SIZE.1 - ROOM.2 - ROOM.3);
        (ROOM.0 + wide * share(x, self.x), ROOM.2 + tall * (1.0 - share(y, self.y)))
    }

    /// Adds a line through points, in one of ten colours, with its name.
    pub fn line(&mut self, name: &str, colour: usize, points: &[(f64, f64)]) {
        if points.is_empty() {
            return;
        }
        let mut text = String::new();
        for &point in points {
            let (x, y) = self.at(point);
            let _ = write!(text, "{x:.1},{y:.1} ");
        }
        if points.len() == 1 {
            let (x, y) = self.at(points[0]);
            let _ = write!(self.marks, "<circle class=\"c{colour} dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
        let _ =
            write!(self.marks, "<polyline class=\"c{colour}\" points=\"{}\"><title>{}</title></polyline>", text.trim_end(), escape(name));
        self.legend.push((name.to_owned(), colour));
    }

    /// Adds points in one of ten colours, with their name.
    pub fn points(&mut self, name: &str, colour: usize, points: &[(f64, f64)]) {
        for &point in points {
            let (x, y) = self.at(point);
            let _ = write!(self.marks, "<circle class=\"c{colour} dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>");
        }
        self.legend.push((name.to_owned(), colour));
    }

    /// Adds a bar from 0 to a value.
    pub fn bar(&mut self, (from, to): (f64, f64), value: f64, title: &str) {
        let ((left, top), (right, bottom)) = (self.at((from, value)), self.at((to, self.y.0)));
        let _ = write!(
            self.marks,
            "<rect class=\"bin\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            left + 1.0,
            (right - left - 2.0).max(0.5),
            (bottom - top).max(0.5),
            escape(title)
        );
    }

    /// The chart as a part of a page.
    pub(crate) fn figure(&self) -> String {
        let mut legend = String::new();
        for (name, colour) in &self.legend {
            let _ = write!(legend, "<span class=key><i class=k{colour}></i>{}</span>", escape(name));
        }
        let title = escape(&self.title);
        format!(
            "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {} {}\" role=img aria-label=\"{title}\">{}</svg><div class=legend>{legend}</div></figure>",
            SIZE.0,
            SIZE.1,
            self.drawing()
        )
    }

    /// The chart as a file of its own, light or dark as the reader likes.
    pub fn svg(&self) -> String {
        const LINE: f64 = 16.0;
        let rows = self.legend.len().div_ceil(2) as f64;
        let mut legend = String::new();
        for (i, (name, colour)) in self.legend.iter().enumerate() {
            let (x, y) = (ROOM.0 + (i % 2) as f64 * (SIZE.0 - ROOM.0) / 2.0, SIZE.1 + 10.0 + (i / 2) as f64 * LINE);
            let _ = write!(
                legend,
                "<path class=\"c{colour}\" d=\"M{x} {y}h14\" stroke-width=\"2\"/><text x=\"{}\" y=\"{}\">{}</text>",
                x + 19.0,
                y + 4.0,
                escape(name)
            );
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 -24 {} {}\" width=\"{}\" font-family=\"system-ui, sans-serif\"><style>{STYLE}</style>\
             <rect y=\"-24\" width=\"100%\" height=\"100%\" style=\"fill:var(--ground)\"/><text x=\"{}\" y=\"-8\" style=\"font-size:14px;fill:var(--ink)\">{}</text>{}{legend}</svg>\n",
            SIZE.0,
            SIZE.1 + 30.0 + rows * LINE,
            1.6 * SIZE.0,
            ROOM.0,
            escape(&self.title),
            self.drawing()
        )
    }

    /// Writes [`Chart::svg`] to a file; its folder is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, self.svg())).map_err(|e| Error::io(path, e))
    }

    /// Axes and marks.
    fn drawing(&self) -> String {
        let mut text = String::new();
        for tick in ticks(self.x) {
            let (x, y) = self.at((tick, self.y.0));
            let _ = write!(
                text,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{y:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\" class=\"mid\">{}</text>",
                ROOM.2,
                y + 14.0,
                number(tick)
            );
        }
        for tick in ticks(self.y).into_iter().filter(|tick| !self.logarithmic || tick.fract() == 0.0) {
            let (x, y) = self.at((self.x.0, tick));
            let _ = write!(
                text,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{}</text>",
                SIZE.0 - ROOM.1,
                x - 5.0,
                y + 4.0,
                if self.logarithmic { format!("1e{tick}") } else { number(tick) }
            );
        }
        let middle = (ROOM.0 + SIZE.0 - ROOM.1) / 2.0;
        let _ = write!(text, "<text x=\"{middle:.1}\" y=\"{:.1}\" class=\"mid\">{}</text>", SIZE.1 - 4.0, escape(&self.label));
        text + &self.marks
    }
}

/// Text inside markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Colours, light and dark, and what charts are drawn with; pages begin with it, too.
const STYLE: &str = include_str!("chart.css");

/// Three to seven round numbers in a range.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low).max(1e-12) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= high + 1e-9 * step).take(12).collect()
}

fn number(x: f64) -> String {
    if x != 0.0 && x.abs() < 1e-3 {
        return format!("{x:.0e}");
    }
    let text = format!("{x:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((0.0, 1.0)), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks((1.0, 30.0)), [10.0, 20.0, 30.0]);
        for range in [(0.0, 0.0), (1.0, 2.0), (-3.0, 1e6), (0.9, 1.0)] {
            assert!(ticks(range).len() <= 12 && ticks(range).iter().all(|t| *t >= range.0 - 1e-9 && *t <= range.1 + 1e-6), "{range:?}");
        }
        assert_eq!([0.6000000000000001, 20.0, -0.0, 5e-4].map(number), ["0.6", "20", "0", "5e-4"]);
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
        let mut chart = Chart::new("<b>", "x", (0.0, 1.0), (0.0, 1.0));
        chart.line("<i>", 0, &[(0.0, 0.5), (1.0, 0.5)]);
        let text = chart.figure();
        assert!(chart.svg().contains("&lt;i&gt;") && !chart.svg().contains("<i>"));
        assert!(!text.contains("<b>") && !text.contains("<i>") && text.contains("points=\"48.0,118.0 408.0,118.0\""), "{text}");
    }
}
