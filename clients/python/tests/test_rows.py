"""What vidgear's StreamGear does and shows, row by row, and the tests that each row has here: those of this package are marked with
`pytest.mark.row`, those of the daemon are named below."""

import ast
import pathlib
import re

import pytest
from conftest import ROOT

#: Each row, with the daemon's own tests of it.
ROWS = {
    # Real-time frames: methods and parameters.
    "constructor": (),
    "stream": (
        "tests/it/producers.rs::each_wrong_request_has_a_refusal_of_its_own",
        "src/ingest/convert/colour_tests.rs::primaries_in_every_format_come_back_from_the_encoder_as_they_were",
    ),
    "methods of the other mode": ("tests/it/sources.rs::a_file_is_published_in_order_and_at_its_speed_and_its_end_is_told",),
    "close, terminate, with": ("tests/it/recordings.rs::every_frame_of_an_event_is_published_once_and_its_close_ends_it",),
    "-input_framerate": ("src/encode/encoder_tests.rs::every_framerate_comes_back_on_its_grid",),
    "-livestream": ("tests/it/window.rs::the_window_rotates_by_its_rules_in_the_folder_and_over_http",),
    "not live": ("tests/it/recordings.rs::the_next_open_begins_another_recording_and_a_restart_finds_both",),
    "-streams": (
        "src/encode/rate_tests.rs::a_bitrate_holds_over_ten_seconds_of_noise",
        "tests/it/renditions.rs::a_rendition_of_half_the_framerate_has_every_second_picture_and_loses_none_when_the_encoder_dies",
    ),
    "-bpp, -gop": ("src/encode/encoder_tests.rs::every_encoder_yields_each_tick_once_with_keyframes_where_they_were_asked_for",),
    "-audio": (
        "tests/it/sound.rs::sound_is_published_beside_the_picture_and_its_faults_disturb_no_tick",
        "tests/it/sound_producers.rs::a_recording_has_each_sample_that_its_producer_wrote_however_fast",
    ),
    "-vcodec and its settings": (
        "tests/it/encoder.rs::an_encoder_that_cant_be_used_or_keeps_failing_is_replaced_by_the_fallback",
        "src/encode/codec.rs::encoders_in_hardware_know_the_options_that_they_are_given",
        "src/encode/arguments.rs::pictures_go_to_the_device_that_encodes_them",
    ),
    "-clones, -core, any other key": (
        "src/encode/arguments.rs::filters_and_further_arguments_of_the_user_have_their_places",
        "src/encode/encoder_tests.rs::a_renditions_own_filter_may_change_the_size_and_its_options_come_last",
    ),
    "-clear_prev_assets": ("src/publish/tests.rs::what_expired_meanwhile_is_removed_and_foreign_files_are_not",),
    "settings of the muxers": ("tests/it/lifecycle.rs::a_stream_that_ends_with_the_daemon_says_so_in_both_formats",),
    "-enable_force_termination": ("tests/it/lifecycle.rs::a_stop_ends_in_time_though_no_encoder_drains_and_starts_no_others",),
    "logging": (
        "src/encode/encoder_tests.rs::an_encoder_that_refuses_its_options_is_quoted",
        "src/encode/process.rs::only_the_last_lines_are_kept_and_long_ones_are_cut",
    ),
    "output to a URL": (),
    "odd sizes": (
        "src/ingest/convert/tests.rs::every_format_comes_out_in_its_colour_and_odd_sides_are_padded_with_their_last_pixels",
        "tests/it/renditions.rs::deep_frames_of_an_odd_size_are_padded_turned_and_encoded_by_four_codecs",
    ),
    # Single-source mode.
    "source: what is in it": (
        "tests/it/source_sound.rs::a_recorded_source_has_its_sound_and_one_without_any_silence",
        "src/source/heard.rs::a_camera_is_known_by_what_ffmpeg_says_of_it",
    ),
    "source: -vcodec copy": ("tests/it/copies.rs::a_file_is_copied_byte_for_byte_without_a_daemon_and_what_cannot_be_is_said",),
    "source: progress and failure": ("src/cli/transcode/progress.rs::progress_says_how_much_is_done_and_how_long_the_rest_takes",),
    "source: cameras and devices": (
        "tests/it/sources.rs::a_camera_that_falls_silent_or_dies_is_shown_again_once_it_is_back",
        "src/source/arguments.rs::a_v4l2_device_is_opened_as_one_with_the_users_arguments",
    ),
    "source: ringgear transcode": (
        "tests/it/transcodes.rs::a_file_is_transcoded_without_a_daemon_and_what_is_wrong_is_said",
        "tests/it/source_sound.rs::a_file_is_transcoded_with_its_sound_or_without",
    ),
    # Its documented examples.
    "example: bare minimum": (),
    "example: controlled framerate": (),
    "example: live from a webcam": (),
    "example: OpenCV frames in gray": (),
    "example: three renditions": (),
    "example: audio from a file": (),
    "example: audio from a device": (),
    "example: hardware encoder": (),
    "example: Raspberry Pi camera": (),
    "example: single source": (),
    "example: single source with streams": (),
    "example: single source with audio": (),
    "example: single source with another encoder": (),
    # What its users ask for.
    "wish: served and played in a browser": (
        "tests/it/players.rs::hls_js_dash_js_and_shaka_play_the_folder_behind_nginx",
        "tests/it/player_page.rs::it_shows_how_it_plays_rewinds_comes_back_to_the_live_edge_and_keeps_what_was_chosen_in_its_address",
    ),
    "wish: low latency": ("tests/it/low_latency.rs::rules_12_to_14_and_19_to_20_hold_in_every_playlist_that_a_player_blocks_on",),
    "wish: cameras of a varying rate": ("src/ingest/choose.rs::one_frame_of_slack_absorbs_jitter_that_would_beat_into_drops_and_repeats",),
    "wish: no frame dropped or doubled uncounted": ("tests/it/frame_accuracy.rs::every_tick_is_published_once_with_the_frame_that_ingest_took",),
    "wish: timestamps": ("tests/it/timing.rs::status_and_metrics_show_how_long_frames_take_on_their_way",),
    "wish: audio in sync": (
        "tests/it/sound.rs::a_flash_and_a_click_of_one_moment_are_published_less_than_20_ms_apart",
        "src/audio/lock_tests.rs::an_hour_of_a_clock_that_is_100_ppm_off_stays_in_sync",
    ),
    "wish: reconnection": ("tests/it/sources.rs::a_camera_that_falls_silent_or_dies_is_shown_again_once_it_is_back",),
    "wish: input options": ("src/source/arguments.rs::a_v4l2_device_is_opened_as_one_with_the_users_arguments",),
}


def marked():
    """The rows that each test of this package is marked with."""
    for path in pathlib.Path(__file__).parent.glob("test_*.py"):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                for mark in function.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.row":
                        yield from ((ast.literal_eval(name), function.name) for name in mark.args)


def test_each_row_has_a_test():
    rows = dict.fromkeys(row for row, _ in marked())
    assert set(rows) <= set(ROWS), "a test is marked with a row that is none"
    assert [row for row, tests in ROWS.items() if not tests and row not in rows] == []


@pytest.mark.parametrize("test", sorted({test for tests in ROWS.values() for test in tests}))
def test_the_daemons_tests_of_a_row_are_there_and_run(test):
    path, name = test.split("::")
    found = re.search(rf"((?:^ *#\[.*\]\n)+) *(?:async )?fn {name}\(", (ROOT / path).read_text(), re.M)
    assert found, "there is no such test"
    assert "test]" in found[1] and "ignore" not in found[1]
