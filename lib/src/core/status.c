/* Status names and texts, errors with their reasons. */
#include "core/utf8.h"

#include <rpcrew/status.h>

#include <stdarg.h>
#include <stdio.h>

static const struct {
    const char *name, *text;
} statuses[] = {
#define X(name, text) { "CREW_" #name, text },
    CREW_STATUS_LIST(X)
#undef X
};

const char *crew_status_name(crew_status status)
{
    return (unsigned)status < CREW_STATUS_COUNT ? statuses[status].name : "CREW_?";
}

const char *crew_status_text(crew_status status)
{
    return (unsigned)status < CREW_STATUS_COUNT ? statuses[status].text : "unknown status";
}

const char *crew_executed_name(crew_executed executed)
{
    static const char *const names[] = { "no", "unknown", "yes" };
    return (unsigned)executed < sizeof names / sizeof *names ? names[executed] : "?";
}

/* Of a text that was cut, as much as ends with a whole character. */
static size_t whole_characters(const char *text, size_t size)
{
    size_t last = size;
    while (last && ((unsigned char)text[last - 1] & 0xC0) == 0x80)
        last--;
    bool torn =
        last && (unsigned char)text[last - 1] >= 0xC0 && !crew_utf8_length(text + last - 1, size - last + 1);
    return torn ? last - 1 : size;
}

crew_status crew_error_set(crew_error *why, crew_status status, const char *format, ...)
{
    if (!why)
        return status;
    /* The arguments may point into *why itself, when one error is wrapped in another. */
    char message[sizeof why->message];
    va_list arguments;
    va_start(arguments, format);
    int printed = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t size = printed < 0 ? 0 : (size_t)printed;
    if (size >= sizeof message)
        size = whole_characters(message, sizeof message - 1);
    crew_utf8_mend(message, size);

    why->status = status;
    why->executed = CREW_EXECUTED_NO;
    why->code = why->elapsed_ms = 0;
    why->name[0] = why->peer_message[0] = why->endpoint[0] = '\0';
    memcpy(why->message, message, sizeof message);
    why->message[size] = '\0';
    return status;
}
