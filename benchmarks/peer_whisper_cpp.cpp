// Hear clips with whisper.cpp's library, one after the other, greedily, without timestamps: for peers.py.
//
//     peer_whisper_cpp MODEL THREADS LANGUAGE CLIP...
//
// A CLIP is float32 samples at 16 kHz. Prints "load SECONDS", a line "SECONDS FIRST_TOKEN_SECONDS TEXT" a clip, and
// "resident KILOBYTES" (VmHWM). The first two clips are heard once more before, unheard of: to warm up.

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "whisper.h"

using Clock = std::chrono::steady_clock;

static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

static std::vector<float> read_clip(const char * path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    std::vector<float> samples(static_cast<size_t>(file.tellg()) / sizeof(float));
    file.seekg(0);
    file.read(reinterpret_cast<char *>(samples.data()), static_cast<std::streamsize>(samples.size() * sizeof(float)));
    return samples;
}

struct FirstLogits {
    Clock::time_point start;
    double seconds = -1;
};

// Called before a token is chosen: the first time, all that is left to do for the first token is to find the largest.
static void note_logits(whisper_context *, whisper_state *, const whisper_token_data *, int, float *, void * data) {
    auto * first = static_cast<FirstLogits *>(data);
    if (first->seconds < 0) {
        first->seconds = seconds_since(first->start);
    }
}

struct Heard {
    double seconds;
    double first_token;
    std::string text;
};

static Heard hear(whisper_context * context, const std::vector<float> & samples, int threads, const char * language) {
    whisper_full_params params = whisper_full_default_params(WHISPER_SAMPLING_GREEDY);
    params.n_threads = threads;
    params.language = language;
    params.greedy.best_of = 1;
    params.temperature = 0.0f;
    params.temperature_inc = 0.0f;  // no second try
    params.no_timestamps = true;
    params.no_context = true;
    params.suppress_nst = true;
    params.print_progress = params.print_realtime = params.print_timestamps = params.print_special = false;
    FirstLogits first;
    params.logits_filter_callback = note_logits;
    params.logits_filter_callback_user_data = &first;
    first.start = Clock::now();
    if (whisper_full(context, params, samples.data(), static_cast<int>(samples.size())) != 0) {
        std::cerr << "whisper_full failed\n";
        std::exit(1);
    }
    Heard heard;
    for (int segment = 0; segment < whisper_full_n_segments(context); segment++) {
        heard.text += whisper_full_get_segment_text(context, segment);
    }
    heard.seconds = seconds_since(first.start);
    heard.first_token = first.seconds;
    return heard;
}

static void print_resident() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        if (word == "VmHWM:" && status >> word) {
            std::cout << "resident " << word << "\n";
        }
    }
}

int main(int count, char ** words) {
    if (count < 5) {
        std::cerr << "usage: peer_whisper_cpp MODEL THREADS LANGUAGE CLIP...\n";
        return 2;
    }
    whisper_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    const Clock::time_point start = Clock::now();
    whisper_context_params params = whisper_context_default_params();
    params.use_gpu = false;
    whisper_context * context = whisper_init_from_file_with_params(words[1], params);
    if (context == nullptr) {
        std::cerr << "cannot load " << words[1] << "\n";
        return 1;
    }
    std::cout << "load " << seconds_since(start) << std::endl;
    const int threads = std::stoi(words[2]);
    for (int clip = 4; clip < count && clip < 6; clip++) {
        hear(context, read_clip(words[clip]), threads, words[3]);
        if (clip == 4) {
            std::cout << "warm" << std::endl;
        }
    }
    for (int clip = 4; clip < count; clip++) {
        const Heard heard = hear(context, read_clip(words[clip]), threads, words[3]);
        std::cout << heard.seconds << " " << heard.first_token << " " << heard.text << std::endl;
    }
    print_resident();
    whisper_free(context);
    return 0;
}
