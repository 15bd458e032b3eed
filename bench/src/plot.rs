//! The drawings: bars for a race, curves over a logarithmic axis for growth.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// One curve.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Colors that color-blind readers can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];

const FONT: &str = "sans-serif";

/// Draws one horizontal bar per item, in the given order, with a label at its end.
pub(crate) fn bars(path: &Path, title: &str, bars: &[(String, f64, String)]) -> Result<()> {
    let height = 60 + 30 * u32::try_from(bars.len())?;
    let drawing = || -> std::result::Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(path, (760, height)).into_drawing_area();
        area.fill(&WHITE)?;
        area.draw(&Text::new(title.to_owned(), (12, 14), (FONT, 17)))?;
        let longest = bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
        for (at, (name, value, note)) in (0i32..).zip(bars) {
            let top = 50 + at * 30;
            let end = 230 + pixels(400.0 * value / longest);
            let is_ours = ["repot", "payload"].iter().any(|ours| name.starts_with(ours));
            let colour = if is_ours {
                COLOURS[0]
            } else if ["floor", "kernel and tree"].iter().any(|floor| name.starts_with(floor)) {
                COLOURS[7]
            } else {
                COLOURS[4]
            };
            area.draw(&Text::new(name.clone(), (12, top + 3), (FONT, 14)))?;
            area.draw(&Rectangle::new([(230, top), (end.max(231), top + 20)], colour.filled()))?;
            area.draw(&Text::new(note.clone(), (end + 8, top + 3), (FONT, 14)))?;
        }
        Ok(area.present()?)
    };
    drawing().map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

/// The labels of the axes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes<'a> {
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
}

/// Draws curves over a logarithmic x axis. The y axis begins at zero.
pub(crate) fn curves(path: &Path, title: &str, axes: Axes<'_>, curves: &[Curve]) -> Result<()> {
    let points = || curves.iter().flat_map(|curve| curve.points.iter());
    let left = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let right = points().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let top = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
    if !left.is_finite() {
        return Ok(());
    }
    let drawing = || -> std::result::Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(path, (760, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 17))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((left * 0.9..right * 1.1).log_scale(), 0.0..top * 1.1)?;
        chart
            .configure_mesh()
            .x_desc(axes.x)
            .y_desc(axes.y)
            .x_label_formatter(&|x| thousands(*x))
            .y_label_formatter(&|y| thousands(*y))
            .label_style((FONT, 13))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(curve.name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(COLOURS[7])
            .label_font((FONT, 13))
            .draw()?;
        Ok(area.present()?)
    };
    drawing().map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

#[allow(clippy::cast_possible_truncation, reason = "the drawing is a few hundred pixels wide")]
fn pixels(length: f64) -> i32 {
    length.round() as i32
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
