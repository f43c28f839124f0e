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

static void write_json(crew_arena *arena, const char *time, crew_log_level level, const char *event,
                       const crew_value *fields, crew_buffer *out)
{
    const crew_value *head;
    if (crew_pack(arena, &head, "{s:s,s:s,s:s}", "time", time, "level", level_names[level], "msg", event) !=
            CREW_OK ||
        crew_json_write(head, CREW_JSON_COMPACT, out) != CREW_OK)
        return;
    size_t before = out->size;
    if (crew_value_count(fields) > 0 && crew_json_write(fields, CREW_JSON_COMPACT, out) == CREW_OK) {
        /* two objects become one: "}{" to "," */
        out->data[before - 1] = ',';
        memmove(out->data + before, out->data + before + 1, out->size - before - 1);
        out->size--;
    }
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

/* Writes it, unless that would block: whoever logs may be an I/O thread. What is not written is counted, and
 * told when there is room again. */
static void write_line(int fd, crew_buffer *line)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* one looks and writes at a time */
    static unsigned long dropped;
    enum { NOTE = 80 };
    struct pollfd room = { .fd = fd, .events = POLLOUT }; /* a pipe has it for PIPE_BUF bytes */
    if (line->size > PIPE_BUF - NOTE) {
        line->size = PIPE_BUF - NOTE;
        line->data[line->size - 1] = '\n';
    }
    pthread_mutex_lock(&mutex);
    if (poll(&room, 1, 0) != 1 || !(room.revents & POLLOUT)) {
        dropped++;
    } else {
        ssize_t written = 0; /* there is nowhere to tell of a failure */
        if (dropped)
            written = write_note(fd, dropped);
        written += write(fd, line->data, line->size);
        (void)written;
        dropped = 0;
    }
    pthread_mutex_unlock(&mutex);
}

static void write_event(int fd, crew_log_level level, const char *event, crew_arena *arena,
                        const crew_value *fields)
{
    static const char *const shown[] = { "OFF", "ERROR", "WARN", "INFO", "DEBUG" };
    crew_buffer out = { 0 };
    char time[32];
    timestamp(time);
    switch (atomic_load(&log_format)) {
    case CREW_LOG_JSON: write_json(arena, time, level, event, fields, &out); break;
    case CREW_LOG_LOGFMT:
        crew_buffer_printf(&out, "time=%s level=%s msg=", time, level_names[level]);
        write_text(crew_str(event), &out);
        write_fields(fields, &out);
        break;
    default: crew_buffer_printf(&out, "%s %-5s %s", time, shown[level], event); write_fields(fields, &out);
    }
    crew_buffer_append(&out, "\n", 1);
    if (!out.failed)
        write_line(fd, &out);
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
    write_event(atomic_load(&log_fd), level, event, &arena, packed);
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
    enum { MOST = 200 };
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

void crew_line_write(struct crew_line *line, int fd, crew_log_level level, const char *event)
{
    write_event(fd, level, event, &line->arena, line->fields);
    crew_arena_fini(&line->arena);
    line->fields = NULL;
}

void crew_line_log(struct crew_line *line, crew_log_level level, const char *event)
{
    if (crew_log_enabled(level)) {
        crew_line_write(line, atomic_load(&log_fd), level, event);
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
