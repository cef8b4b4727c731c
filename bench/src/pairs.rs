//! Nine interleaved pairs, and their median ratio.

/// How many pairs are measured.
const PAIRS: usize = 9;

/// Measures `ours` and `theirs` in turn, and prints the median of each and of their ratios.
///
/// Both return a rate: more is better.
pub(crate) fn compare(
    name: &str,
    unit: &str,
    mut ours: impl FnMut() -> f64,
    mut theirs: impl FnMut() -> f64,
) {
    // Not counted: caches, allocators and the processor's clock get warm.
    ours();
    theirs();
    let pairs: Vec<(f64, f64)> = (0..PAIRS).map(|_| (ours(), theirs())).collect();
    let of = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
    let (ours, theirs) = (of(|pair| pair.0), of(|pair| pair.1));
    let ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
    let (least, most) = (
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    );
    println!(
        "{name:<58} {ours:>9.2} {theirs:>9.2}  {:.2} ({least:.2}-{most:.2}) {unit}",
        median(ratios)
    );
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
