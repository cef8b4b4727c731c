//! Nine interleaved pairs, and their median ratio.

/// How many pairs are measured.
const PAIRS: usize = 9;

/// The medians of both rates, and of their ratios.
pub(crate) struct Pair {
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) ratio: f64,
    least: f64,
    most: f64,
}

/// Measures `ours` and `theirs` in turn. Both return a rate: more is better.
pub(crate) fn measure(mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> Pair {
    // Not counted: caches, allocators and the processor's clock get warm.
    ours();
    theirs();
    let pairs: Vec<(f64, f64)> = (0..PAIRS).map(|_| (ours(), theirs())).collect();
    let of = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
    let ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
    Pair {
        ours: of(|pair| pair.0),
        theirs: of(|pair| pair.1),
        least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        most: ratios.iter().copied().fold(0.0, f64::max),
        ratio: median(ratios),
    }
}

/// Measures `ours` and `theirs` in turn, and prints the median of each and of their ratios.
pub(crate) fn compare(
    name: &str,
    unit: &str,
    ours: impl FnMut() -> f64,
    theirs: impl FnMut() -> f64,
) {
    let Pair {
        ours,
        theirs,
        ratio,
        least,
        most,
    } = measure(ours, theirs);
    println!("{name:<58} {ours:>9.2} {theirs:>9.2}  {ratio:.2} ({least:.2}-{most:.2}) {unit}");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
