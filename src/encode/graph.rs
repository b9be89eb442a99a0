//! FFmpeg's filter graph: how each rendition's pictures are made of those that come in. Pure.

use std::num::NonZeroU32;

use super::hardware;
use super::{EncodePlan, EncodeRendition};
use crate::config::Hardware;
use crate::picture::Size;

/// What all pictures are, for filters and encoders.
const TAGS: &str = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709";

/// The graph whose outputs are `[o0]`, `[o1]`... `picks` says for each rendition which of the pictures it takes, in FFmpeg's words; none if all.
pub(super) fn graph(
    plan: &EncodePlan,
    renditions: &[EncodeRendition],
    picks: &[Option<String>],
) -> String {
    let picks: Vec<_> = (0..renditions.len())
        .map(|index| picks.get(index).and_then(Option::as_deref))
        .collect();
    let above = above(plan.input_size, renditions, &picks);
    let below = |from: Option<usize>| {
        let taken = above
            .iter()
            .enumerate()
            .filter(move |(_, own)| **own == from);
        taken.map(|(index, _)| format!("[i{index}]"))
    };
    let mut graph = format!("[0:v]{TAGS},setsar=1{}", split(below(None).collect()));
    for (index, rendition) in renditions.iter().enumerate() {
        let from = above[index].map_or(plan.input_size, |above| renditions[above].size);
        let ends = std::iter::once(format!("[o{index}]")).chain(below(Some(index)));
        graph += &format!(
            ";[i{index}]{}{}",
            chain(from, rendition, picks[index]),
            split(ends.collect())
        );
    }
    graph
}

/// Where pictures go on to, once or several times.
fn split(ends: Vec<String>) -> String {
    match ends.len() {
        1 => ends.concat(),
        count => format!(",split={count}{}", ends.concat()),
    }
}

/// For each rendition the one whose pictures are scaled down for it, the smallest that is large enough: most of scaling is reading what is
/// large. None for those that are made of what comes in. What that costs in quality is in docs/design/performance.md.
fn above(
    input: Size,
    renditions: &[EncodeRendition],
    picks: &[Option<&str>],
) -> Vec<Option<usize>> {
    let gives = |index: &usize| {
        let own = &renditions[*index];
        let all = own.every == NonZeroU32::MIN && picks[*index].is_none();
        let plain = own.filter.is_none() && !uploads(own);
        let scaled = own.size.width < input.width && fitted(input, own.size) == own.size;
        all && plain && scaled
    };
    // Sizes that are close to each other would be blurred again and again.
    let is_smaller = |one: u32, other: u32| u64::from(one) * 4 <= u64::from(other) * 3;
    let of = |own: &EncodeRendition| {
        let larger = |index: &usize| {
            let other = renditions[*index].size;
            is_smaller(own.size.width, other.width)
                && is_smaller(own.size.height, other.height)
                && fitted(other, own.size) == fitted(input, own.size)
        };
        (0..renditions.len())
            .filter(|index| own.filter.is_none() && gives(index) && larger(index))
            .min_by_key(|index| renditions[*index].size.width)
    };
    renditions.iter().map(of).collect()
}

/// What a rendition's pictures go through, which are of size `from` before.
fn chain(from: Size, rendition: &EncodeRendition, picks: Option<&str>) -> String {
    let mut filters = Vec::new();
    if let Some(picks) = picks {
        filters.push(format!("select='{picks}'"));
    }
    if rendition.every > NonZeroU32::MIN {
        // A tick is the unit of time here.
        filters.push(format!("setpts=N*{}", rendition.every));
    }
    match &rendition.filter {
        None => filters.push(scaling(from, rendition.size)),
        Some(own) => {
            filters.push(own.clone());
            filters.push(scaling_of_any(rendition.size));
        }
    }
    let kind = Hardware::of(&rendition.codec);
    filters.extend(kind.and_then(hardware::upload).map(str::to_owned));
    filters.join(",")
}

/// Whether its pictures go to a device's memory.
pub(super) fn uploads(rendition: &EncodeRendition) -> bool {
    Hardware::of(&rendition.codec).is_some_and(Hardware::uploads)
}

/// What makes pictures of size `from` such of size `to`: scaled with their aspect kept, centred on black.
fn scaling(from: Size, to: Size) -> String {
    if from == to {
        return "null".into();
    }
    let fitted = fitted(from, to);
    // Matrix and range are named so that nothing is converted.
    let mut filter = format!(
        "scale={}:{}:flags=bicubic:in_color_matrix=bt709:out_color_matrix=bt709:in_range=tv:out_range=tv",
        fitted.width, fitted.height
    );
    if fitted != to {
        let even_half = |outer: u32, inner: u32| (outer - inner) / 4 * 2;
        filter += &format!(
            ",pad={}:{}:{}:{}",
            to.width,
            to.height,
            even_half(to.width, fitted.width),
            even_half(to.height, fitted.height)
        );
    }
    filter + ",setsar=1"
}

/// The same of pictures of any size, format and matrix, as the user's own filters leave them.
fn scaling_of_any(to: Size) -> String {
    let Size { width, height } = to;
    format!(
        "scale={width}:{height}:force_original_aspect_ratio=decrease:force_divisible_by=2:flags=bicubic:out_color_matrix=bt709:out_range=tv,\
         format=yuv420p,pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,setsar=1,{TAGS}"
    )
}

/// The largest even size of `from`'s aspect inside `to`.
fn fitted(from: Size, to: Size) -> Size {
    let side = |outer: u32, across: u32, along: u32, bound: u32| {
        let (n, d) = (
            u64::from(outer) * u64::from(across),
            u64::from(along).max(1),
        );
        let even = (n + d) / (2 * d) * 2;
        u32::try_from(even).unwrap_or(bound).clamp(2, bound)
    };
    let wider = u64::from(from.width) * u64::from(to.height)
        >= u64::from(to.width) * u64::from(from.height);
    if wider {
        Size::new(to.width, side(to.width, from.height, from.width, to.height))
    } else {
        Size::new(
            side(to.height, from.width, from.height, to.width),
            to.height,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::RateControl;

    fn rendition(width: u32, height: u32) -> EncodeRendition {
        EncodeRendition {
            name: "a".into(),
            size: Size::new(width, height),
            codec: "libx264".into(),
            preset: None,
            rate: RateControl::Crf(23),
            options: Vec::new(),
            every: NonZeroU32::MIN,
            device: None,
            filter: None,
            output_args: Vec::new(),
        }
    }

    fn above_of(renditions: &[EncodeRendition]) -> Vec<Option<usize>> {
        let picks = vec![None; renditions.len()];
        above(Size::new(1920, 1080), renditions, &picks)
    }

    #[test]
    fn a_rung_is_scaled_from_the_smallest_that_is_large_enough_in_any_order() {
        let ladder = [(640, 360), (1920, 1080), (854, 480), (1280, 720)];
        let ladder = ladder.map(|(width, height)| rendition(width, height));
        assert_eq!(above_of(&ladder), [Some(2), None, Some(3), None]);
        let close = [(1280, 720), (1152, 648), (960, 540)].map(|(w, h)| rendition(w, h));
        assert_eq!(above_of(&close), [None, None, Some(0)]);
    }

    #[test]
    fn what_is_padded_filtered_thinned_or_on_a_device_gives_nothing_to_others() {
        let ladder = |larger| above_of(&[larger, rendition(640, 360)])[1];
        assert_eq!(ladder(rendition(1280, 720)), Some(0));
        assert_eq!(ladder(rendition(1280, 960)), None);
        let plain = || rendition(1280, 720);
        let others = [
            EncodeRendition {
                filter: Some("hflip".into()),
                ..plain()
            },
            EncodeRendition {
                every: NonZeroU32::new(2).unwrap(),
                ..plain()
            },
            EncodeRendition {
                codec: "h264_vaapi".into(),
                ..plain()
            },
        ];
        assert_eq!(others.map(ladder), [None; 3]);
        let thinned = [plain(), rendition(640, 360)];
        let picks = [Some("eq(n,0)"), None];
        assert_eq!(above(Size::new(1920, 1080), &thinned, &picks), [None; 2]);
    }

    #[test]
    fn users_filters_get_what_comes_in_and_other_shapes_are_padded_from_a_rung() {
        let own = EncodeRendition {
            filter: Some("hflip".into()),
            ..rendition(640, 360)
        };
        assert_eq!(above_of(&[rendition(1280, 720), own]), [None; 2]);
        let square = [rendition(1280, 720), rendition(480, 480)];
        assert_eq!(above_of(&square), [None, Some(0)]);
    }

    proptest! {
        #[test]
        fn a_fitted_size_is_even_and_inside(w in 1..4000_u32, h in 1..4000_u32, x in 1..2000_u32, y in 1..2000_u32) {
            let to = Size::new(2 * x, 2 * y);
            let fitted = fitted(Size::new(2 * w, 2 * h), to);
            prop_assert!(fitted.is_even() && fitted.width >= 2 && fitted.height >= 2);
            prop_assert!(fitted.width <= to.width && fitted.height <= to.height);
            prop_assert!(fitted.width == to.width || fitted.height == to.height);
        }
    }
}
