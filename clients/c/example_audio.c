/* A tone for a stream's sound: example_audio [STREAM [SECONDS]]. The stream's config has source = "producer" under audio. */
#define _POSIX_C_SOURCE 200809L
#include <ringgear.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RATE = 48000, BLOCK = RATE / 100 };

/* A triangle, 400 times a second. */
static int16_t wave(long sample) {
    long place = sample % (RATE / 400);
    return (int16_t)(200 * (place < 60 ? place - 30 : 90 - place));
}

int main(int argc, char **argv) {
    long seconds = argc > 2 ? atol(argv[2]) : 10, blocks = seconds * (RATE / BLOCK);
    int16_t samples[BLOCK];
    struct timespec next;
    ringgear_audio *audio;
    ringgear_account end = {0, 0, 0};
    ringgear_audio_options options;
    ringgear_audio_options_init(&options, sizeof options);
    options.stream = argc > 1 ? argv[1] : "door";
    options.format = "s16le";
    options.rate = RATE;
    options.channels = 1;
    int code = ringgear_audio_open(&options, &audio);
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long n = 0; code >= 0 && n < blocks; n++) {
        for (long i = 0; i < BLOCK; i++)
            samples[i] = wave(n * BLOCK + i);
        /* They have just come. Not OK and not negative: the daemon is away. */
        code = ringgear_audio_write(audio, samples, sizeof samples, 0);
        /* At the pace at which it is heard, by absolute times, so that no error adds up. */
        next.tv_nsec += 10000000;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    if (code < 0)
        fprintf(stderr, "example_audio: %s\n", ringgear_audio_last_error(audio));
    ringgear_audio_close(audio, &end);
    printf("used %ld, superseded %ld, late %ld\n", (long)end.used, (long)end.superseded, (long)end.late);
    return code < 0;
}
