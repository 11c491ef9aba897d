#include "json.h"
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef union block {
    union block *next;
    max_align_t align;
} block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block *blocks;

void *keep(size_t size) {
    block *made = calloc(1, sizeof *made + size);
    if (made == NULL) abort();
    pthread_mutex_lock(&lock);
    made->next = blocks;
    blocks = made;
    pthread_mutex_unlock(&lock);
    return made + 1;
}

void json_free_all(void) {
    while (blocks != NULL) {
        block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

char *format(const char *form, ...) {
    va_list list;
    va_start(list, form);
    int n = vsnprintf(NULL, 0, form, list);
    va_end(list);
    char *text = keep((size_t)n + 1);
    va_start(list, form);
    vsnprintf(text, (size_t)n + 1, form, list);
    va_end(list);
    return text;
}

static json *make(kind kind) {
    json *value = keep(sizeof *value);
    value->kind = kind;
    return value;
}

json *json_null(void) { return make(KIND_NULL); }
json *json_list(void) { return make(KIND_LIST); }
json *json_object(void) { return make(KIND_OBJECT); }

json *json_boolean(int boolean) {
    json *value = make(KIND_BOOLEAN);
    value->boolean = boolean != 0;
    return value;
}

json *json_number(double number) {
    json *value = make(KIND_NUMBER);
    value->number = number;
    return value;
}

json *json_string(const char *text, size_t n) {
    if (text == NULL) return json_null();
    json *value = make(KIND_STRING);
    value->text = keep(n + 1);
    memcpy(value->text, text, n);
    return value;
}

json *json_add(json *list, json *item) {
    if ((list->count & (list->count + 1)) == 0) { /* full: twice as many */
        json **items = keep((2 * list->count + 2) * sizeof *items);
        if (list->count > 0) memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
    }
    list->items[list->count++] = item;
    return list;
}

json *json_set(json *object, const char *key, json *value) {
    for (size_t i = 0; i < object->count; i++)
        if (strcmp(object->keys[i], key) == 0) {
            object->items[i] = value;
            return object;
        }
    char **keys = keep((object->count + 1) * sizeof *keys);
    if (object->count > 0) memcpy(keys, object->keys, object->count * sizeof *keys);
    keys[object->count] = format("%s", key);
    object->keys = keys;
    return json_add(object, value);
}

json *json_get(const json *object, const char *key) {
    if (object->kind == KIND_OBJECT)
        for (size_t i = 0; i < object->count; i++)
            if (strcmp(object->keys[i], key) == 0) return object->items[i];
    return json_null();
}

const char *json_word(const json *object, const char *key) { return json_get(object, key)->text; }

double json_amount(const json *object, const char *key, double without) {
    const json *value = json_get(object, key);
    return value->kind == KIND_NUMBER ? value->number : without;
}

/* Reading */

typedef struct reader {
    const char *at, *end;
    int bad;
} reader;

static int next(reader *r) {
    while (r->at < r->end && strchr(" \t\r\n", *r->at) != NULL) r->at++;
    return r->at < r->end ? *r->at : 0;
}

static int skip(reader *r, char c) {
    if (next(r) != c) return 0;
    r->at++;
    return 1;
}

static unsigned hex(reader *r) {
    unsigned code = 0;
    for (int i = 0; i < 4 && r->at < r->end; i++, r->at++) {
        const char *digits = "0123456789abcdef", *found = strchr(digits, *r->at | 0x20);
        if (found == NULL) r->bad = 1;
        else code = code * 16 + (unsigned)(found - digits);
    }
    return code;
}

static char *utf8(char *to, unsigned code) {
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to++ = (char)((0xF00 >> more) | code >> (6 * more));
    while (more-- > 0) *to++ = (char)(0x80 | (code >> (6 * more) & 0x3F));
    return to;
}

static json *read_string(reader *r) {
    json *value = make(KIND_STRING);
    char *to = value->text = keep((size_t)(r->end - r->at) + 1);
    while (r->at < r->end && *r->at != '"') {
        char c = *r->at++;
        if (c != '\\' || r->at == r->end) {
            *to++ = c;
            continue;
        }
        c = *r->at++;
        const char *names = "bfnrt", *found = strchr(names, c);
        if (c == 'u') {
            unsigned code = hex(r);
            if (code >= 0xD800 && code < 0xDC00 && r->end - r->at > 6) {
                r->at += 2; /* of the second half */
                code = 0x10000 + ((code - 0xD800) << 10) + (hex(r) - 0xDC00);
            }
            to = utf8(to, code);
        } else *to++ = found != NULL ? "\b\f\n\r\t"[found - names] : c;
    }
    if (r->at == r->end) r->bad = 1;
    r->at++;
    return value;
}

static json *read(reader *r) {
    json *value;
    const char *words[] = {"null", "false", "true"};
    if (skip(r, '"')) return read_string(r);
    if (skip(r, '[')) {
        value = json_list();
        if (skip(r, ']')) return value;
        do json_add(value, read(r));
        while (skip(r, ',') && !r->bad);
        r->bad |= !skip(r, ']');
        return value;
    }
    if (skip(r, '{')) {
        value = json_object();
        if (skip(r, '}')) return value;
        do {
            r->bad |= !skip(r, '"');
            if (r->bad) return value;
            json *key = read_string(r);
            r->bad |= !skip(r, ':');
            json_set(value, key->text, read(r));
        } while (skip(r, ',') && !r->bad);
        r->bad |= !skip(r, '}');
        return value;
    }
    next(r);
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(r->end - r->at) < n || strncmp(r->at, words[i], n) != 0) continue;
        r->at += n;
        return i == 0 ? json_null() : json_boolean(i == 2);
    }
    char *end;
    value = json_number(strtod(r->at, &end)); /* texts end with a NUL or with what is no number */
    r->bad |= end == r->at || end > r->end;
    r->at = end;
    return value;
}

json *json_parse(const char *text, size_t n) {
    if (text == NULL) return json_null();
    reader r = {text, text + n, 0};
    json *value = read(&r);
    return r.bad || next(&r) != 0 ? json_null() : value;
}

/* Writing */

typedef struct writer {
    char *text;
    size_t used, size;
} writer;

static void put(writer *w, const char *text, size_t n) {
    if (w->used + n + 1 > w->size) {
        w->size = 2 * (w->used + n + 1);
        char *larger = keep(w->size);
        if (w->used > 0) memcpy(larger, w->text, w->used);
        w->text = larger;
    }
    memcpy(w->text + w->used, text, n);
    w->used += n;
}

static void put_string(writer *w, const char *text) {
    put(w, "\"", 1);
    for (; *text != 0; text++) {
        char escaped[8];
        if (*text == '"' || *text == '\\') snprintf(escaped, sizeof escaped, "\\%c", *text);
        else if ((unsigned char)*text < 0x20) snprintf(escaped, sizeof escaped, "\\u%04x", *text);
        else snprintf(escaped, sizeof escaped, "%c", *text);
        put(w, escaped, strlen(escaped));
    }
    put(w, "\"", 1);
}

static void write_value(writer *w, const json *value) {
    char number[40];
    switch (value->kind) {
    case KIND_NULL: put(w, "null", 4); break;
    case KIND_BOOLEAN: put(w, value->boolean ? "true" : "false", value->boolean ? 4 : 5); break;
    case KIND_NUMBER:
        if (floor(value->number) == value->number && fabs(value->number) < 1e15)
            snprintf(number, sizeof number, "%lld", (long long)value->number);
        else snprintf(number, sizeof number, "%.17g", value->number);
        put(w, number, strlen(number));
        break;
    case KIND_STRING: put_string(w, value->text); break;
    case KIND_LIST:
    case KIND_OBJECT:
        put(w, value->kind == KIND_LIST ? "[" : "{", 1);
        for (size_t i = 0; i < value->count; i++) {
            if (i > 0) put(w, ",", 1);
            if (value->kind == KIND_OBJECT) {
                put_string(w, value->keys[i]);
                put(w, ":", 1);
            }
            write_value(w, value->items[i]);
        }
        put(w, value->kind == KIND_LIST ? "]" : "}", 1);
    }
}

char *json_text(const json *value) {
    writer w = {NULL, 0, 0};
    write_value(&w, value);
    put(&w, "", 0);
    return w.text;
}
