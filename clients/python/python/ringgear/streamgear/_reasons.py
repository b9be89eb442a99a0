"""FFmpeg options that StreamGear would have passed on, and why Ringgear can't: by their names without the leading dash."""

from __future__ import annotations

from typing import Mapping, Sequence

_Table = Sequence["tuple[frozenset[str], str]"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What Ringgear decides itself.
OWNED: _Table = (
    (
        _names("g keyint_min sc_threshold force_key_frames forced-idr forced_idr no-scenecut intra-refresh"),
        "keyframes stand where segments begin; -gop or the segments' length says how far apart",
    ),
    (_names("bf max_b_frames b-pyramid b_strategy lag-in-frames auto-alt-ref usage"), "pictures are encoded in the order in which they are shown"),
    (_names("tune"), "the encoder is tuned for least delay"),
    (_names("pix_fmt aspect colorspace color_primaries color_trc color_range"), "pictures are published as BT.709 in 4:2:0, with the shape of their pixels kept"),
    (_names("filter filter_complex lavfi filter_script"), "a rendition has one chain of filters: give it as -vf"),
    (
        _names("c codec vcodec preset crf b s vf vaapi_device"),
        "it is a parameter of its own, for all streams or the primary one; each of -streams has a -resolution and a -video_bitrate",
    ),
    (
        _names("attach bitexact bsf dump_attachment flags flush_packets fs streamid tag target vstats vstats_file vtag write_index"),
        "the daemon takes the encoder's output by itself, and tags it as players want it",
    ),
    (_names("enc_time_base fpsmax frames framerate i itsoffset itsscale output_ts_offset r vframes"), "frames and their times come from the script"),
    (_names("gpu qsv_device"), "the daemon finds a hardware encoder's device, unless it is -vaapi_device"),
    (_names("map an vn sn dn shortest metadata map_metadata map_chapters disposition"), "Ringgear itself says which pictures and sounds go where"),
    (_names("maxrate bufsize minrate"), "they follow from the bitrate, so that it holds"),
    (_names("pass passlogfile"), "frames come once, so there is one pass"),
)

#: What an encoder's own list of parameters may not say, for Ringgear does: by the list's name. In them `_` is `-`, and `no-` before a name is the same parameter.
OWNED_WITHIN: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("x264-params", "x264opts"),
        _names(
            "keyint min-keyint keyint-min scenecut intra-refresh bframes b-pyramid open-gop annexb stitchable fps force-cfr timebase colorprim"
            " transfer colormatrix fullrange range filler nal-hrd bitrate vbv-maxrate vbv-bufsize crf pass stats"
        ),
    ),
    "x265-params": _names(
        "keyint min-keyint scenecut intra-refresh bframes open-gop radl gop-lookahead repeat-headers annexb fps input input-res input-csp"
        " input-depth output output-depth colorprim transfer colormatrix range hrd strict-cbr bitrate vbv-maxrate vbv-bufsize crf pass stats csv"
        " recon"
    ),
    "aom-params": _names(
        "usage passes pass fpf profile bit-depth input-bit-depth width height timebase fps lag-in-frames end-usage target-bitrate buf-sz"
        " buf-initial-sz cq-level drop-frame resize-mode kf-min-dist kf-max-dist disable-kf fwd-kf-enabled sframe-dist large-scale-tile annexb"
        " color-primaries transfer-characteristics matrix-coefficients"
    ),
    "svtav1-params": _names(
        "keyint irefresh-type enable-force-key-frames pred-struct rc tbr mbr crf qp fps fps-num fps-denom width height input-depth"
        " color-primaries transfer-characteristics matrix-coefficients color-range pass stats"
    ),
}

#: Filters that change how many pictures there are, or when they are shown.
OF_TIME = _names("fps framerate framestep select setpts settb decimate mpdecimate minterpolate trim tpad loop reverse concat")

#: FFmpeg's options that have no value.
FLAGS = _names("an bitexact copyts dn hide_banner n nostdin re report shortest sn stats vn vstats y")

#: What has no meaning here.
INAPPLICABLE: _Table = (
    (_names("ffmpeg_download_path"), "no FFmpeg is downloaded; on Linux it comes with the system"),
    (
        _names("f movflags hls_segment_type hls_segment_filename hls_fmp4_init_filename segment_list strftime master_pl_name var_stream_map"),
        "segments are CMAF (fMP4), which all players of both formats take, and stand in a folder beside the manifest",
    ),
    (
        _names("use_timeline use_template single_file adaptation_sets init_seg_name media_seg_name single_file_name dash_segment_type format_options global_sidx hls_playlist"),
        "Ringgear writes the manifests, with a SegmentTimeline, and one AdaptationSet for each codec",
    ),
    (
        _names("ldash lhls streaming frag_duration frag_type target_latency index_correction utc_timing_url write_prft min_playback_rate max_playback_rate update_period"),
        "low latency needs a server: Ringgear's own has both kinds of it",
    ),
    (_names("extra_window_size hls_delete_threshold"), "segments stay about as long again as the manifest lists them"),
    (_names("hls_time hls_init_time hls_list_size hls_base_url hls_playlist_type"), "it is for format='hls'"),
    (_names("seg_duration"), "it is for format='dash'; HLS has -hls_time"),
    (_names("window_size"), "it is for a live stream in DASH; HLS has -hls_list_size"),
    (_names("hls_flags"), "a live stream's old segments go, a recording's stay, and files are replaced whole, whatever the flags"),
    (_names("hls_allow_cache method http_user_agent http_persistent timeout ignore_io_errors headers"), "files are written to the disk, where servers find them"),
    (_names("y n loglevel v hide_banner report progress stats nostdin re stream_loop ss t to vsync fps_mode copyts"), "frames are taken as they come, and FFmpeg's words are kept by the daemon"),
    (_names("ac ar af acodec_tag aq q:a vbr"), "of the audio, -acodec and the bitrate can be chosen"),
    (_names("init_hw_device filter_hw_device hwaccel hwaccel_device hwaccel_output_format"), "the daemon chooses what a hardware encoder needs"),
)

#: Values that ask for what happens anyway.
SATISFIED: Mapping[str, Sequence[str]] = {
    "bf": ("0",),
    "sc_threshold": ("0",),
    "tune": ("zerolatency",),
    "pix_fmt": ("yuv420p",),
    "hls_segment_type": ("fmp4",),
    "use_template": ("1",),
    "use_timeline": ("1",),
    "hls_flags": (
        "delete_segments+discont_start+split_by_time",
        "delete_segments",
        "independent_segments",
        "program_date_time",
        "temp_file",
    ),
    "f": ("dash", "hls"),
}
