/* HTTP/1 messages (RFC 9112), one after another in a stream of bytes. No I/O, and nothing of what they mean.
 */
#ifndef TRANSPORT_HTTP_MESSAGE_H
#define TRANSPORT_HTTP_MESSAGE_H

#include "transport/http_chunks.h"

#include <rpcrew/impl/memory.h>

#include <http_parser.h>

enum http_event {
    HTTP_MORE,      /* it has not ended */
    HTTP_HEAD_READ, /* the head is there; told once, before the body is read */
    HTTP_WHOLE,     /* all of it is there */
    HTTP_BAD        /* it is none: status and why say what a server answers */
};

/* A message as far as it has come. All zero, but for what http_begin sets, at its beginning. */
struct http_message {
    http_parser parser;
    bool begun, has_head;
    bool keeps_alive, upgrades, chunked;
    bool discards; /* the body is not kept; its owner's */
    unsigned status;
    const char *why;    /* of HTTP_BAD */
    const char *method; /* of a request */
    uint64_t length;    /* of the body, if that is said before; UINT64_MAX: it is not */
    size_t head_bytes;  /* that have come */
    size_t head_most, body_most;
    crew_buffer head; /* a request's target or a response's reason, then each field's name, in lower
                         case, and value: all with a NUL behind them */
    size_t fields;    /* where the first one's name begins */
    bool in_value;    /* the parser's last words were a value */
    bool in_line;     /* its first one has begun, */
    bool has_line;    /* and is there */
    char last;        /* byte of the head that was read */
    bool body_begun;  /* the head's end is behind us */
    uint64_t left;    /* of a body that is not chunked; UINT64_MAX: all that comes */
    struct http_chunks chunks;
    crew_buffer body;
    size_t body_bytes; /* of it that have come */
};

/* Begins the next one, of a client's or a server's, with what it may have at most. */
void http_begin(struct http_message *message, enum http_parser_type type, size_t head_most, size_t body_most);
/* Frees what it has. */
void http_end(struct http_message *message);

/* Takes bytes, says how many, and what came of them. ended: no more will come. */
enum http_event http_read(struct http_message *message, crew_string bytes, bool ended, size_t *taken);

/* A request's target, as it was sent. */
crew_string http_target(const struct http_message *message);

struct http_field {
    crew_string name, value;
    size_t next; /* where the one behind it is; 0: none was looked at yet */
};
/* Goes on to the next field, from { 0 } to the first; false: there is none. */
bool http_next_field(const struct http_message *message, struct http_field *field);
/* The first of that name (in lower case), or NULL; with its NUL. */
const char *http_field(const struct http_message *message, const char *name);
/* Whether a list of tokens, separated by commas, has this one. list may be NULL. */
bool http_list_has(const char *list, const char *token);

#endif
