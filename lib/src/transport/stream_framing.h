/* Where a message ends in a stream of bytes: JSON in lines, one value behind the other or behind
 * Content-Length headers, MessagePack objects. No I/O, and nothing of what the messages mean. */
#ifndef TRANSPORT_STREAM_FRAMING_H
#define TRANSPORT_STREAM_FRAMING_H

#include <rpcrew/impl/memory.h>
#include <rpcrew/url.h>

enum stream_kind {
    STREAM_UNKNOWN,      /* the first bytes will tell */
    STREAM_LINES,        /* a value a line */
    STREAM_CONCATENATED, /* JSON values, with or without whitespace between them */
    STREAM_LENGTHS,      /* headers as in HTTP, Content-Length among them, an empty line, so many bytes */
    STREAM_OBJECTS       /* MessagePack */
};

/* The values of framing=; NULL: not told. */
#define STREAM_FRAMINGS "lines|concatenated|content-length|msgpack"
#define STREAM_FRAMING_OPTION \
    { "framing", STREAM_FRAMINGS, 0, 0, "how messages are told apart; else by the first bytes" }

/* Of one direction of a connection. All zero, but for kind, at its beginning. */
struct stream_framing {
    enum stream_kind kind;
    const char *why; /* of rubbish */
    size_t scanned;  /* of the message that begins now */
    uint64_t left;   /* objects of it that have not been seen */
    unsigned depth;
    bool begun, in_string, escaped;
    bool under_way;      /* a message has been found */
    bool guessed;        /* the kind, by the first bytes, and this is the first message */
    bool may_be_lines;   /* that has ended, and was a value all in one line */
    bool many_lines;     /* the value that begins now is not in one */
    bool foreign;        /* the message's Content-Type is MessagePack's */
    size_t head, wanted; /* of Content-Length: where the body begins, and the whole ends; 0: not known yet */
};

/* Where in the bytes the next message is. */
struct stream_span {
    size_t body, size; /* the message */
    size_t end;        /* what comes behind it */
};

enum stream_found {
    STREAM_MORE,    /* it has not ended; it begins, or will, at span->body, and so does the next call */
    STREAM_MESSAGE, /* span says where it is; the next call begins at span->end */
    STREAM_SKIPPED, /* what was there was no message, and has been taken: look again (no framing of these) */
    STREAM_RUBBISH  /* no message, and nobody knows where the next one begins; span is what there is of it */
};

/* Looks for the next message in all bytes that have come since the last one, or since where the last call
 * says. ended: no more will come. most: bytes of a message, beyond which it is rubbish. */
enum stream_found stream_framing_next(struct stream_framing *framing, crew_string bytes, bool ended,
                                      size_t most, struct stream_span *span);

/* The content type of what was found last, or NULL: its first bytes tell. */
const char *stream_framing_type(const struct stream_framing *framing);

/* Appends a message, in this framing; of an unknown one by its type. content_type may be NULL. */
void stream_framing_write(enum stream_kind kind, const char *content_type, crew_string body,
                          crew_buffer *out);

/* What the URL says. */
enum stream_kind stream_framing_kind(const crew_url *url);

/* Whether the URL's framing carries a content type. */
bool stream_framing_carries(const crew_url *url, const char *content_type);

#endif
