/*
 * Write camera frames and sound into Ringgear, the live video daemon, from C99 or C++11.
 *
 * A producer feeds one stream. It never makes a live camera's loop wait: frames are written into shared memory, a full ring gives its
 * oldest waiting frame up, and while the daemon is away frames are dropped and counted, until a thread of the library has reconnected.
 *
 *     ringgear_options options;
 *     ringgear_producer *producer;
 *     ringgear_options_init(&options, sizeof options);
 *     options.stream = "door";
 *     options.format = "bgr24";
 *     options.width = 1280;
 *     options.height = 720;
 *     int code = ringgear_open(&options, &producer);
 *     if (code != RINGGEAR_OK)
 *         errx(1, "%s", ringgear_last_error(NULL));
 *     while (grab(pixels) && (code = ringgear_write(producer, pixels, size, 0)) >= 0) { }
 *     ringgear_close(producer, NULL);
 *
 * Sound goes by functions of its own, which begin with ringgear_audio_: see below.
 *
 * Build with `cc camera.c $(pkg-config --cflags --libs ringgear)`.
 *
 * Results: RINGGEAR_OK, RINGGEAR_DROPPED, or an error, which is negative. ringgear_strerror says what a code means in general, and
 * ringgear_last_error what happened here and how to mend it.
 *
 * Threads: any thread may use a producer; its functions lock it, so none runs beside another of the same producer.
 * Processes: after fork(), only one of the two may use a producer; the other must not touch it, not even to close it.
 * Signals: the library sends none and handles none; it doesn't cause SIGPIPE.
 *
 * Versions: RINGGEAR_ABI is the number in the library's soname, libringgear.so.1. It rises when a program that was built against an older
 * header would no longer run right. Additions don't raise it: functions, codes, and fields at the end of ringgear_options and
 * ringgear_counters, which tell the library their size. So handle unknown negative codes as errors.
 */
#ifndef RINGGEAR_H
#define RINGGEAR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the binary interface that this header describes. */
#define RINGGEAR_ABI 1

/* The most planes that a format has. */
#define RINGGEAR_MAX_PLANES 3

/* What functions return. */
enum {
    RINGGEAR_OK = 0,
    /* No error: the daemon is away, the frame is dropped and counted. ringgear_last_error says why. */
    RINGGEAR_DROPPED = 1,

    /* A null pointer, a size that is not the frame's, text that is not UTF-8. */
    RINGGEAR_E_ARGUMENT = -1,
    /* The pixel format, size or strides, or the sound's format, are not possible, or the ring would be too large. */
    RINGGEAR_E_FORMAT = -2,
    /* No daemon listens at the socket. */
    RINGGEAR_E_NO_DAEMON = -3,
    /* The socket's permissions keep this process out. */
    RINGGEAR_E_PERMISSION = -4,
    /* The daemon's config does not let this user feed the stream. */
    RINGGEAR_E_NOT_PERMITTED = -5,
    /* No stream has this name. */
    RINGGEAR_E_UNKNOWN_STREAM = -6,
    /* Another producer holds the stream. */
    RINGGEAR_E_BUSY = -7,
    /* Another producer took the stream over. */
    RINGGEAR_E_TAKEN_OVER = -8,
    /* Memory, descriptors or threads ran out, here or in the daemon. */
    RINGGEAR_E_RESOURCES = -9,
    /* The daemon is stopping, or went away without a word. */
    RINGGEAR_E_GONE = -10,
    /* The daemon did not answer in time. */
    RINGGEAR_E_NO_ANSWER = -11,
    /* Daemon and library don't understand each other: are they of the same version? */
    RINGGEAR_E_PROTOCOL = -12,
    /* The ring's memory is not what was agreed on. */
    RINGGEAR_E_RING = -13,
    /* Reading from or writing to the connection failed. */
    RINGGEAR_E_IO = -14,
    /* The call came at the wrong time: a second begin, a commit without a begin. */
    RINGGEAR_E_ORDER = -15,
    /* A fault of the library. The producer can only be closed. */
    RINGGEAR_E_INTERNAL = -16
};

/* A producer: one stream's camera, over as many sessions as the daemon's life needs. */
typedef struct ringgear_producer ringgear_producer;

/* What a producer is opened with. Set it up by ringgear_options_init. Texts are UTF-8, and are copied. */
typedef struct ringgear_options {
    /* sizeof(ringgear_options), set by ringgear_options_init. */
    size_t struct_size;
    /* The stream to feed. Required. */
    const char *stream;
    /* FFmpeg's name of the pixel format: bgr24, rgb24, bgra, rgba, gray, yuv420p, nv12, yuyv422, uyvy422, ya8, gray16le,
     * yuv422p, yuv444p, p010le, yuv420p10le, yuv422p10le or yuv444p10le. Required. */
    const char *format;
    /* The frames' size in pixels. Required. */
    uint32_t width;
    uint32_t height;
    /* The daemon's control socket; NULL: $RINGGEAR_SOCKET, else /run/ringgear/control.sock. */
    const char *socket;
    /* The program's name and version, for the daemon's logs; NULL: the library's. */
    const char *client;
    /* Bytes from row to row of each plane in shared memory; 0 for all: rows without padding. For views that need aligned rows. */
    size_t strides[RINGGEAR_MAX_PLANES];
    /* How many frames the ring holds, 3 to 32; 0: the daemon's choice. */
    uint32_t slots;
    /* Not 0: end the session of another producer that holds the stream. Only the first opening does so. */
    int take_over;
} ringgear_options;

/* One plane of a frame in shared memory. */
typedef struct ringgear_plane {
    /* The first row. */
    uint8_t *data;
    /* Bytes from row to row. */
    size_t stride;
    /* Bytes of a row that hold pixels. */
    size_t row_bytes;
    /* Rows. */
    size_t rows;
} ringgear_plane;

/* A frame's place in shared memory, from ringgear_begin until the call that ends it. It holds some older frame's pixels. */
typedef struct ringgear_frame {
    /* All planes, padding of rows included. */
    uint8_t *data;
    /* Bytes at data. */
    size_t size;
    /* The camera's own number of the frame: from 0, dropped frames counted too. */
    uint64_t number;
    /* How many planes there are; the rest are zeros. */
    size_t plane_count;
    ringgear_plane planes[RINGGEAR_MAX_PLANES];
} ringgear_frame;

/* What became of a producer's frames so far, over all sessions. */
typedef struct ringgear_counters {
    /* Frames handed to the daemon. */
    uint64_t committed;
    /* How many of those gave way to newer ones because the ring was full: the daemon is late, or the camera is faster than it says. */
    uint64_t superseded;
    /* Frames that were dropped because the daemon was away. */
    uint64_t dropped;
    /* Sessions opened: more than 1 says that the producer has come back. */
    uint64_t sessions;
    /* 1 while there is a session, as far as the last call noticed, else 0. */
    uint64_t connected;
} ringgear_counters;

/* What the daemon says became of the last session's committed frames. */
typedef struct ringgear_account {
    /* Shown. */
    uint64_t used;
    /* Passed over for newer ones. */
    uint64_t superseded;
    /* Came after the session's end. */
    uint64_t late;
} ringgear_account;

/* Sets every option to its default. struct_size is sizeof(ringgear_options). */
void ringgear_options_init(ringgear_options *options, size_t struct_size);

/*
 * Opens a producer. Waits for the daemon's answer, a few seconds at most. This first opening has to succeed; later ones are the
 * library's business. On failure *producer is NULL, and ringgear_last_error(NULL) says why; ringgear_can_retry says whether
 * calling again later may help.
 */
int ringgear_open(const ringgear_options *options, ringgear_producer **producer);

/*
 * Gives the next frame's place in shared memory: write the pixels there, then call ringgear_commit. Waits for nothing in a live stream;
 * a recorded one loses no frame, so a full ring is waited for until the daemon frees a place, or is away.
 * RINGGEAR_DROPPED: the daemon is away, nothing is to be written or committed. An error that is not E_ARGUMENT or E_ORDER is
 * final, and every later call returns it too. What frame points to is valid until the next commit, abandon or close.
 */
int ringgear_begin(ringgear_producer *producer, ringgear_frame *frame);

/*
 * Hands the frame that was begun to the daemon. captured_ns is when its light was caught, in nanoseconds of CLOCK_MONOTONIC, as
 * V4L2 and ringgear_now have it; 0: now.
 */
int ringgear_commit(ringgear_producer *producer, uint64_t captured_ns);

/* Gives up the frame that was begun: it never was. */
int ringgear_abandon(ringgear_producer *producer);

/*
 * Copies a whole frame, given plane after plane without padding, and commits it. size has to be the frame's. pixels must not lie in
 * shared memory that ringgear_begin gave. RINGGEAR_DROPPED, errors and waits are ringgear_begin's.
 */
int ringgear_write(ringgear_producer *producer, const void *pixels, size_t size, uint64_t captured_ns);

/*
 * Copies a frame whose planes lie anywhere, and commits it: count planes, planes[i] with strides[i] bytes from row to row, as
 * AVFrame, GstVideoFrame, cv::Mat and V4L2 buffers have them. count has to be the format's.
 */
int ringgear_write_planes(ringgear_producer *producer, const void *const *planes, const size_t *strides,
                          size_t count, uint64_t captured_ns);

/*
 * Notices a session lost and a session found: RINGGEAR_OK with a session, RINGGEAR_DROPPED without. Begin and write do so
 * too; call this where frames are rare. Waits for nothing.
 */
int ringgear_check(ringgear_producer *producer);

/* Fills in counters. struct_size is sizeof(ringgear_counters). */
int ringgear_get_counters(ringgear_producer *producer, ringgear_counters *counters, size_t struct_size);

/*
 * Ends the producer in good order, and frees it whatever is returned. A frame that was begun is given up. Waits for the daemon's
 * account: a few seconds at most, but of a recorded stream until the recording is whole. account may be NULL, and is zeros when
 * there is none. RINGGEAR_DROPPED: the daemon is away.
 * On errors, ringgear_last_error(NULL) says more. producer may be NULL.
 */
int ringgear_close(ringgear_producer *producer, ringgear_account *account);

/* A producer of sound: it feeds the sound of one stream, whose config has source = "producer" in [streams.NAME.audio]. */
typedef struct ringgear_audio ringgear_audio;

/* What a producer of sound is opened with. Set it up by ringgear_audio_options_init. Texts are UTF-8, and are copied. */
typedef struct ringgear_audio_options {
    /* sizeof(ringgear_audio_options), set by ringgear_audio_options_init. */
    size_t struct_size;
    /* The stream to feed. Required. */
    const char *stream;
    /* s16le, signed integers of 16 bits, or f32le, floats from -1 to 1; both little endian. Required. */
    const char *format;
    /* Samples a second, 8000 to 192000. Required. */
    uint32_t rate;
    /* How many channels a sample has, 1 to 8. Required. */
    uint32_t channels;
    /* As in ringgear_options. */
    const char *socket;
    const char *client;
    /* How many blocks the ring holds, 3 to 32; 0: the daemon's choice. */
    uint32_t slots;
    /* Not 0: end the session of another producer of the stream's sound. Only the first opening does so. */
    int take_over;
} ringgear_audio_options;

/* Sets every option to its default. struct_size is sizeof(ringgear_audio_options). */
void ringgear_audio_options_init(ringgear_audio_options *options, size_t struct_size);

/* Opens a producer of sound, as ringgear_open does one of frames. */
int ringgear_audio_open(const ringgear_audio_options *options, ringgear_audio **audio);

/*
 * Copies samples into shared memory, as many as there are: size bytes, whole samples, a value for each channel in turn. Ten milliseconds at
 * a time are a good measure. captured_ns is when the first of them was heard, in nanoseconds of CLOCK_MONOTONIC; 0: they have just
 * come. Waits for nothing in a live stream: write sound as it is recorded, for what comes faster than it is heard is lost. In a recorded
 * stream nothing is lost: it waits while there is no room. RINGGEAR_DROPPED: the daemon is away. An error that is not E_ARGUMENT is final, and every later call returns it too.
 */
int ringgear_audio_write(ringgear_audio *audio, const void *samples, size_t size, uint64_t captured_ns);

/* Notices a session lost and a session found, as ringgear_check does. */
int ringgear_audio_check(ringgear_audio *audio);

/* Fills in counters: committed and superseded are of blocks here, dropped is of samples. struct_size is sizeof(ringgear_counters). */
int ringgear_audio_get_counters(ringgear_audio *audio, ringgear_counters *counters, size_t struct_size);

/* Ends a producer of sound, as ringgear_close does one of frames; the account is of blocks. audio may be NULL. */
int ringgear_audio_close(ringgear_audio *audio, ringgear_account *account);

/* What ringgear_last_error is for frames. With NULL it is the same: this thread's last opening or closing that failed. */
const char *ringgear_audio_last_error(ringgear_audio *audio);

/* CLOCK_MONOTONIC now, in nanoseconds. */
uint64_t ringgear_now(void);

/* What a code means, in one line. Never NULL, valid for ever. */
const char *ringgear_strerror(int code);

/* 1 if the same call may succeed later with nothing changed here, so that trying again makes sense, else 0. */
int ringgear_can_retry(int code);

/*
 * What the last result of this producer other than RINGGEAR_OK was about, with its cause and mend, in one line; empty: there was none.
 * With NULL: of this thread's last failed ringgear_open or ringgear_close. Valid until this thread asks again.
 */
const char *ringgear_last_error(ringgear_producer *producer);

/* The library's RINGGEAR_ABI, and its version as text. */
uint32_t ringgear_abi(void);
const char *ringgear_version(void);

#ifdef __cplusplus
}
#endif

#endif
