/* Endpoint URLs: scheme://[user[:password]@]host[:port][,host[:port]…]/path?option=value&…
 * docs/urls.md lists schemes and options. */
#ifndef RPCREW_URL_H
#define RPCREW_URL_H

#include <rpcrew/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct crew_url crew_url;

/* Parses a URL (NUL-terminated, 4 KiB at most). Percent escapes are decoded in all parts; a NUL is refused.
 * CREW_BAD_ARGUMENT with what is wrong and where, CREW_NO_MEMORY. */
CREW_NODISCARD CREW_API crew_status crew_url_parse(const char *text, crew_url **url, crew_error *why);
/* One more holder, who frees it as well; returns it. A url is read-only, and for any thread. */
CREW_API crew_url *crew_url_hold(crew_url *url);
/* The last holder's ends it. NULL is fine. */
CREW_API void crew_url_free(crew_url *url);

/* All texts are borrowed for the url's life. Absent parts are NULL. */
CREW_API const char *crew_url_scheme(const crew_url *url);
/* The URL as it was written, with the password replaced by "***": for logs and errors. */
CREW_API const char *crew_url_text(const crew_url *url);
CREW_API const char *crew_url_user(const crew_url *url);
CREW_API const char *crew_url_password(const crew_url *url);
CREW_API size_t crew_url_host_count(const crew_url *url);
/* "" if the host is empty; an IPv6 address without its brackets. */
CREW_API const char *crew_url_host(const crew_url *url, size_t index);
/* 0 if there is none. */
CREW_API uint16_t crew_url_port(const crew_url *url, size_t index);
/* With its leading '/', decoded; "" if there is none. */
CREW_API const char *crew_url_path(const crew_url *url);
/* An option's text ("" for one without a value), or NULL. */
CREW_API const char *crew_url_option(const crew_url *url, const char *name);
/* The index-th of those with a name, or NULL. */
CREW_API const char *crew_url_option_at(const crew_url *url, const char *name, size_t index);
/* Whether an option is given, with this value. */
CREW_API bool crew_url_option_is(const crew_url *url, const char *name, const char *value);

/* A text that may have URLs in it, or what was meant to be one, as it may be shown: what looks like a
 * password is
 * "***", and so are the values of options like password=. Rather too much than too little. Cut to room.
 * Returns out. Any thread. */
CREW_API const char *crew_redact(const char *text, char *out, size_t room);

/* A copy of a program's words, for it to read instead; in the words themselves what crew_redact would not
 * show is overwritten, since any user may read them (ps, /proc/PID/cmdline): so call it first. Words that are
 * not those which the process was started with are left alone, and all where there is no /proc. The copy is
 * for the life of the process. NULL without memory: then nothing is hidden. */
CREW_API char **crew_hide_words(int argc, char **argv);

/* What a transport says of one of its options; the list ends with a NULL name. */
typedef struct crew_url_option_spec {
    const char *name;
    const char *choices; /* "a|b|c", or NULL: any text, or a number if max is not 0 */
    uint64_t min, max;   /* a whole number in this range */
    const char *doc;
    bool repeats; /* it may be given more than once */
} crew_url_option_spec;

/* Checks every option against the lists (either may be NULL): CREW_BAD_ARGUMENT for an unknown option (*why
 * lists the known ones), one given twice, or a value out of choices or range. */
CREW_NODISCARD CREW_API crew_status crew_url_check(const crew_url *url, const crew_url_option_spec *specs,
                                                   const crew_url_option_spec *more, crew_error *why);

/* A checked numeric option's value, or fallback if it is not given. */
CREW_API uint64_t crew_url_number(const crew_url *url, const char *name, uint64_t fallback);

#ifdef __cplusplus
}
#endif
#endif
