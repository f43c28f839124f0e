/* Log lines: one event, its fields, one write. */
#include "core/log.h"

#include "core/json.h"
#include "core/value.h"

#include <rpcrew/impl/message.h>

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* One log a process; each is read alone, so relaxed atomics do. */
static atomic_int log_level;
static atomic_int log_format;
static atomic_int log_fd;

static const char *const level_names[] = { "off", "error", "warn", "info", "debug" };
static const char *const format_names[] = { "text", "logfmt", "json" };

void crew_log_open(const crew_log_options *options)
{
    atomic_store(&log_format, (int)options->format);
    atomic_store(&log_fd, options->fd ? options->fd : STDERR_FILENO);
    atomic_store(&log_level, (int)options->level);
}

static crew_status parse_name(const char *name, const char *const *names, int count, const char *what,
                              int *out, crew_error *why)
{
    char list[64] = "";
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = i;
            return CREW_OK;
        }
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    }
    return crew_error_set(why, CREW_BAD_ARGUMENT, "no log %s '%s'; there are %s", what, name, list);
}

crew_status crew_log_level_parse(const char *name, crew_log_level *level, crew_error *why)
{
    int index = 0;
    crew_status status = parse_name(name, level_names, 5, "level", &index, why);
    if (status == CREW_OK)
        *level = (crew_log_level)index;
    return status;
}

crew_status crew_log_format_parse(const char *name, crew_log_format *format, crew_error *why)
{
    int index = 0;
    crew_status status = parse_name(name, format_names, 3, "format", &index, why);
    if (status == CREW_OK)
        *format = (crew_log_format)index;
    return status;
}

bool crew_log_enabled(crew_log_level level)
{
    return level != CREW_LOG_OFF && (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

static void timestamp(char text[32])
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t used = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &parts);
    (void)snprintf(text + used, 32 - used, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

/* Bare where that is unambiguous, quoted as in JSON elsewhere. A quoted text stays on its line. */
static void write_text(crew_string text, crew_buffer *out)
{
    bool bare = text.size > 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        bare = bare && c > ' ' && c < 0x7F && c != '"' && c != '=' && c != '\\';
    }
    if (bare)
        crew_buffer_append(out, text.data, text.size);
    else if (crew_json_write_string(text, out) != CREW_OK)
        crew_buffer_text(out, "?\"");
}

static void write_fields(const crew_value *fields, crew_buffer *out)
{
    for (size_t i = 0; i < crew_value_count(fields); i++) {
        crew_string text;
        const crew_value *value = crew_value_at(fields, i);
        crew_buffer_printf(out, " %.*s=", CREW_STR(crew_text_of(crew_value_key_at(fields, i))));
        if (crew_value_string(value, &text) == CREW_OK)
            write_text(text, out);
        else if (crew_json_write(value, CREW_JSON_COMPACT, out) != CREW_OK)
            crew_buffer_text(out, "?");
    }
}

static void write_json_text(const char *text, crew_buffer *out)
{
    if (crew_json_write_string(crew_str(text), out) != CREW_OK)
        crew_buffer_text(out, "?\"");
}

/* A field that JSON cannot say costs the others nothing. */
static void write_json(const char *time, crew_log_level level, const char *event, const crew_value *fields,
                       crew_buffer *out)
{
    crew_buffer_printf(out, "{\"time\":\"%s\",\"level\":\"%s\",\"msg\":", time, level_names[level]);
    write_json_text(event, out);
    for (size_t i = 0; i < crew_value_count(fields); i++) {
        crew_buffer_text(out, ",");
        size_t before = out->size;
        if (crew_json_write_string(crew_text_of(crew_value_key_at(fields, i)), out) != CREW_OK)
            out->size = before - 1;
        else {
            crew_buffer_text(out, ":");
            before = out->size;
            if (crew_json_write(crew_value_at(fields, i), CREW_JSON_COMPACT, out) != CREW_OK) {
                out->size = before;
                crew_buffer_text(out, "\"?\"");
            }
        }
    }
    crew_buffer_text(out, "}");
}

/* Whether three bytes are a character that ends lines or turns text around for some readers; *code: which. */
static bool is_unsafe(const unsigned char *c, size_t left, size_t *size, unsigned *code)
{
    *size = 1;
    *code = *c;
    if (*c == 0x7F)
        return true;
    if (left > 1 && *c == 0xC2 && c[1] < 0xA0) {
        *size = 2;
        *code = c[1];
        return true;
    }
    if (left < 3 || *c != 0xE2 || (c[1] != 0x80 && c[1] != 0x81))
        return false;
    *size = 3;
    *code = 0x2000 + ((c[1] & 1U) << 6) + (c[2] & 0x3FU);
    return (*code >= 0x2028 && *code <= 0x202E) || (*code >= 0x2066 && *code <= 0x2069);
}

/* Such characters only stand in quoted texts, where \\u is as good. */
static void escape(crew_buffer *line)
{
    crew_buffer safe = { 0 };
    size_t done = 0, size;
    unsigned code;
    for (size_t i = 0; i < line->size; i++) {
        if (!is_unsafe((const unsigned char *)line->data + i, line->size - i, &size, &code))
            continue;
        crew_buffer_append(&safe, line->data + done, i - done);
        crew_buffer_printf(&safe, "\\u%04x", code);
        done = i + size;
        i = done - 1;
    }
    if (!done)
        return;
    crew_buffer_append(&safe, line->data + done, line->size - done);
    crew_buffer before = *line;
    *line = safe;
    crew_buffer_fini(&before);
}

static ssize_t write_note(int fd, unsigned long dropped)
{
    switch (atomic_load(&log_format)) {
    case CREW_LOG_LOGFMT: return dprintf(fd, "level=warn msg=\"lines were dropped\" count=%lu\n", dropped);
    case CREW_LOG_JSON:
        return dprintf(fd, "{\"level\":\"warn\",\"msg\":\"lines were dropped\",\"count\":%lu}\n", dropped);
    default: return dprintf(fd, "WARN  %lu lines were dropped: nobody read the log\n", dropped);
    }
}

/* Writes it, unless that would block: whoever logs may be an I/O thread. */
static void write_line(int fd, struct crew_sink *sink, crew_buffer *line)
{
    enum { NOTE = 80 };
    struct pollfd room = { .fd = fd, .events = POLLOUT }; /* a pipe has it for PIPE_BUF bytes */
    if (line->size > PIPE_BUF - NOTE) {
        line->size = PIPE_BUF - NOTE;
        line->data[line->size - 1] = '\n';
    }
    pthread_mutex_lock(&sink->mutex);
    bool written = poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) &&
                   (!sink->dropped || write_note(fd, sink->dropped) > 0);
    if (written) {
        sink->dropped = 0;
        written = write(fd, line->data, line->size) == (ssize_t)line->size;
    }
    sink->dropped += !written;
    pthread_mutex_unlock(&sink->mutex);
}

void crew_sink_init(struct crew_sink *sink)
{
    *sink = (struct crew_sink){ .dropped = 0 };
    (void)pthread_mutex_init(&sink->mutex, NULL); /* cannot fail without attributes */
}

/* The log's own. */
static struct crew_sink log_sink = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static void write_event(int fd, struct crew_sink *sink, crew_log_level level, const char *event,
                        const crew_value *fields)
{
    static const char *const shown[] = { "OFF", "ERROR", "WARN", "INFO", "DEBUG" };
    crew_buffer out = { 0 };
    char time[32];
    timestamp(time);
    switch (atomic_load(&log_format)) {
    case CREW_LOG_JSON: write_json(time, level, event, fields, &out); break;
    case CREW_LOG_LOGFMT:
        crew_buffer_printf(&out, "time=%s level=%s msg=", time, level_names[level]);
        write_text(crew_str(event), &out);
        write_fields(fields, &out);
        break;
    default: crew_buffer_printf(&out, "%s %-5s %s", time, shown[level], event); write_fields(fields, &out);
    }
    crew_buffer_append(&out, "\n", 1);
    if (!out.failed)
        escape(&out);
    if (!out.failed)
        write_line(fd, sink, &out);
    crew_buffer_fini(&out);
}

void crew_log(crew_log_level level, const char *event, const char *fields, ...)
{
    if (!crew_log_enabled(level))
        return;
    crew_arena arena = { 0 };
    const crew_value *packed = NULL;
    if (fields) {
        va_list arguments;
        va_start(arguments, fields);
        if (crew_vpack(&arena, &packed, fields, arguments) != CREW_OK)
            packed = NULL;
        va_end(arguments);
    }
    write_event(atomic_load(&log_fd), &log_sink, level, event, packed);
    crew_arena_fini(&arena);
}

/* ---- lines ---- */

/* Without memory a field is left out. */
static void add(struct crew_line *line, const char *key, const char *format, ...)
{
    const crew_value *value;
    va_list arguments;
    if (!line->fields && crew_object_new(&line->arena, &line->fields) != CREW_OK)
        return;
    va_start(arguments, format);
    if (crew_vpack(&line->arena, &value, format, arguments) == CREW_OK)
        (void)!crew_object_add(&line->arena, line->fields, crew_str(key), value);
    va_end(arguments);
}

/* A text of somebody else's is cut, between two characters. */
void crew_line_text(struct crew_line *line, const char *key, crew_string text)
{
    enum { MOST = 400 };
    if (text.size > MOST)
        for (text.size = MOST; text.size && ((unsigned char)text.data[text.size] & 0xC0) == 0x80;)
            text.size--;
    if (text.size)
        add(line, key, "S", text);
}

void crew_line_number(struct crew_line *line, const char *key, int64_t number)
{
    add(line, key, "I", number);
}

void crew_line_write(struct crew_line *line, int fd, struct crew_sink *sink, crew_log_level level,
                     const char *event)
{
    write_event(fd, sink, level, event, line->fields);
    crew_arena_fini(&line->arena);
    line->fields = NULL;
}

void crew_line_log(struct crew_line *line, crew_log_level level, const char *event)
{
    if (crew_log_enabled(level)) {
        crew_line_write(line, atomic_load(&log_fd), &log_sink, level, event);
    } else {
        crew_arena_fini(&line->arena);
        line->fields = NULL;
    }
}

bool crew_rate_allows(struct crew_rate *rate, unsigned *left_out)
{
    int64_t now = crew_now_ms(), until = atomic_load(&rate->until_ms);
    if (now >= until && atomic_compare_exchange_strong(&rate->until_ms, &until, now + CREW_RATE_MS))
        atomic_store(&rate->count, 0);
    if (atomic_fetch_add(&rate->count, 1) >= CREW_RATE_LINES) {
        atomic_fetch_add(&rate->left_out, 1);
        return false;
    }
    *left_out = atomic_exchange(&rate->left_out, 0);
    return true;
}
