//! A column for each supported type, a value for it, and changes that no reader of the value may overlook.
//! `c` stands for the column. A change must alter what is stored, if only its spelling.

/// What kind of change it is; the documentation has a row for each.
pub const VALUE: &str = "cell changed";
pub const EMPTY: &str = "NULL against empty, empty against NULL";
pub const SCALE: &str = "numeric scale alone (1.0 and 1.00), also inside jsonb, arrays and composites";
pub const ZERO: &str = "-0.0 against 0.0";
pub const SPELLING: &str =
    "equal value, other spelling (interval, timetz, citext case, json and xml white space, array bounds)";

pub struct Cell {
    pub column: &'static str,
    pub kind: &'static str,
    pub value: &'static str,
    pub changes: &'static [(&'static str, &'static str)],
}

const fn cell(
    column: &'static str,
    kind: &'static str,
    value: &'static str,
    changes: &'static [(&'static str, &'static str)],
) -> Cell {
    Cell { column, kind, value, changes }
}

/// Types that travel in binary.
pub const BINARY: &[Cell] = &[
    cell("a_bool", "bool", "true", &[(VALUE, "not c"), (EMPTY, "null")]),
    cell("a_small", "smallint", "1", &[(VALUE, "c + 1"), (VALUE, "-c")]),
    cell("an_int", "int", "65536", &[(VALUE, "c # 1"), (VALUE, "c # (1 << 31)")]),
    cell("a_big", "bigint", "1::bigint << 62", &[(VALUE, "c - 1"), (VALUE, "c # 4294967296")]),
    cell(
        "a_numeric",
        "numeric",
        "12.50",
        &[
            (VALUE, "c + 0.0001"),
            (VALUE, "'NaN'"),
            (VALUE, "-c"),
            (SCALE, "c::numeric(20,5)"),
            (SCALE, "trim_scale(c)"),
        ],
    ),
    cell("a_zero", "numeric", "0.0", &[(SCALE, "0.00"), (EMPTY, "null")]),
    cell("a_fixed", "numeric(12,4)", "1", &[(VALUE, "c + 0.0001")]),
    cell("a_real", "real", "0", &[(ZERO, "'-0'"), (VALUE, "1e-45"), (VALUE, "'NaN'")]),
    cell("a_double", "float8", "0", &[(ZERO, "'-0'"), (VALUE, "5e-324"), (VALUE, "'-Infinity'")]),
    cell("a_third", "float8", "1 / 3.0::float8", &[(VALUE, "0.33333333333333337")]),
    cell("some_money", "money", "'12.34'", &[(VALUE, "c + '0.01'::money")]),
    cell(
        "a_text",
        "text",
        "'a text'",
        &[
            (VALUE, "c || ' '"),
            (VALUE, "upper(c)"),
            (VALUE, "E'a\\ttext'"),
            (VALUE, "U&'\\0430 text'"),
            (EMPTY, "null"),
        ],
    ),
    cell("empty_text", "text", "''", &[(EMPTY, "null"), (VALUE, "'\\N'"), (VALUE, "' '")]),
    cell("null_text", "text", "null", &[(EMPTY, "''"), (VALUE, "'null'"), (VALUE, "'\\N'")]),
    cell("a_varchar", "varchar(9)", "'ab'", &[(VALUE, "'ab '"), (VALUE, "'aB'")]),
    cell("a_char", "char(4)", "'ab'", &[(VALUE, "'ac'"), (EMPTY, "null")]),
    cell("one_char", "\"char\"", "'x'", &[(VALUE, "'y'")]),
    cell("a_name", "name", "'name'", &[(VALUE, "'Name'")]),
    cell(
        "some_bytes",
        "bytea",
        "'\\x00ff5c0a'",
        &[(VALUE, "set_bit(c, 7, 1)"), (VALUE, "c || '\\x00'"), (VALUE, "substr(c, 2)"), (EMPTY, "''")],
    ),
    cell("no_bytes", "bytea", "''", &[(EMPTY, "null")]),
    cell("a_date", "date", "'2024-02-29'", &[(VALUE, "c + 1"), (VALUE, "'infinity'")]),
    cell("a_time", "time", "'12:00'", &[(VALUE, "c + interval '1 microsecond'")]),
    cell("a_timetz", "timetz", "'12:00+02'", &[(SPELLING, "'11:00+01'"), (VALUE, "'12:00+01'")]),
    cell("a_moment", "timestamp", "'2024-01-01'", &[(VALUE, "c + interval '1 microsecond'"), (VALUE, "'-infinity'")]),
    cell(
        "an_instant",
        "timestamptz",
        "'2024-01-01 00:00+00'",
        &[(VALUE, "c + interval '1 hour'"), (VALUE, "date_trunc('year', c) + interval '1 microsecond'")],
    ),
    cell("an_interval", "interval", "'1 day'", &[(SPELLING, "'24 hours'"), (VALUE, "c + '1 microsecond'")]),
    cell("a_month", "interval", "'1 month'", &[(SPELLING, "'30 days'")]),
    cell(
        "a_uuid",
        "uuid",
        "'00000000-0000-0000-0000-000000000001'",
        &[(VALUE, "'10000000-0000-0000-0000-000000000001'")],
    ),
    cell(
        "a_json",
        "json",
        "'{\"a\":1}'",
        &[(SPELLING, "'{\"a\": 1}'"), (SPELLING, "'{\"a\":1.0}'"), (VALUE, "'{\"a\":2}'"), (EMPTY, "null")],
    ),
    cell(
        "a_jsonb",
        "jsonb",
        "'{\"a\": 1.0, \"s\": \"\"}'",
        &[
            (SCALE, "'{\"a\": 1.00, \"s\": \"\"}'"),
            (VALUE, "c || '{\"b\": null}'"),
            (EMPTY, "'{\"a\": 1.0, \"s\": null}'"),
        ],
    ),
    cell("null_jsonb", "jsonb", "'null'", &[(EMPTY, "null"), (VALUE, "'\"null\"'")]),
    cell(
        "an_xml",
        "xml",
        "'<a> <b/></a>'",
        &[(SPELLING, "'<a><b/></a>'"), (SPELLING, "'<a> <b></b></a>'"), (VALUE, "'<a> <c/></a>'")],
    ),
    cell("an_inet", "inet", "'10.0.0.1/8'", &[(VALUE, "'10.0.0.1/16'"), (VALUE, "c + 1")]),
    cell("a_cidr", "cidr", "'10.0.0.0/8'", &[(VALUE, "'10.0.0.0/9'")]),
    cell("a_mac", "macaddr", "'08:00:2b:01:02:03'", &[(VALUE, "'08:00:2b:01:02:04'")]),
    cell("a_mac8", "macaddr8", "'08:00:2b:01:02:03:04:05'", &[(VALUE, "'08:00:2b:01:02:03:04:06'")]),
    cell("three_bits", "bit(3)", "b'101'", &[(VALUE, "b'100'")]),
    cell("some_bits", "varbit", "b'1'", &[(VALUE, "b'10'"), (EMPTY, "b''")]),
    cell("a_point", "point", "'(0,1)'", &[(ZERO, "'(-0,1)'"), (VALUE, "'(1,0)'")]),
    cell("a_line", "line", "'{1,-1,0}'", &[(VALUE, "'{2,-2,0}'")]),
    cell("a_segment", "lseg", "'[(0,0),(1,1)]'", &[(VALUE, "'[(1,1),(0,0)]'")]),
    cell("a_box", "box", "'(2,2),(0,0)'", &[(VALUE, "'(4,1),(0,0)'")]),
    cell("a_path", "path", "'[(0,0),(1,1)]'", &[(VALUE, "'((0,0),(1,1))'")]),
    cell("a_polygon", "polygon", "'((0,0),(1,1),(1,0))'", &[(VALUE, "'((1,1),(1,0),(0,0))'")]),
    cell("a_circle", "circle", "'<(0,0),1>'", &[(VALUE, "'<(0,0),2>'")]),
    cell("a_vector", "tsvector", "'a:1A fat:2'", &[(VALUE, "'a:1B fat:2'"), (EMPTY, "''")]),
    cell("a_query", "tsquery", "'a & b'", &[(VALUE, "'a | b'")]),
    cell("a_range", "int4range", "'[1,5)'", &[(VALUE, "'[1,6)'"), (EMPTY, "'empty'")]),
    cell("a_numrange", "numrange", "'[1.0,2)'", &[(SCALE, "'[1.00,2)'"), (VALUE, "'[1.0,2]'"), (VALUE, "'[1.0,)'")]),
    cell("a_multirange", "int8multirange", "'{[1,2),[4,5)}'", &[(VALUE, "'{[1,3),[4,5)}'"), (EMPTY, "'{}'")]),
    cell(
        "some_ints",
        "int[]",
        "'{1,2}'",
        &[(SPELLING, "'[0:1]={1,2}'"), (VALUE, "'{2,1}'"), (VALUE, "'{{1,2}}'"), (EMPTY, "'{}'")],
    ),
    cell(
        "some_texts",
        "text[]",
        "array['a', null, '']",
        &[(EMPTY, "array['a', '', '']"), (VALUE, "array['a', 'NULL', '']"), (VALUE, "array['a,NULL', '']")],
    ),
    cell("some_numbers", "numeric[]", "'{1.0,2}'", &[(SCALE, "'{1.00,2}'")]),
    cell("some_floats", "float8[]", "'{0}'", &[(ZERO, "'{-0}'")]),
    cell("an_oid", "oid", "1", &[(VALUE, "2")]),
    cell("a_place", "pg_lsn", "'0/1'", &[(VALUE, "'1/0'")]),
    cell("an_enum", "stage", "'open'", &[(VALUE, "'won'"), (EMPTY, "null")]),
    cell("a_positive", "positive", "1.5", &[(VALUE, "c + 0.0001")]),
];

/// Types that travel as text: their bytes would name other objects, or an extension made them.
pub const TEXT: &[Cell] = &[
    cell(
        "stages",
        "stage[]",
        "array['open', null]::stage[]",
        &[(VALUE, "array['open', 'lost']::stage[]"), (EMPTY, "'{}'")],
    ),
    cell(
        "a_pair",
        "pair",
        "row(1.0, '', 'open')",
        &[
            (SCALE, "row(1.00, '', 'open')::pair"),
            (EMPTY, "row(1.0, null, 'open')::pair"),
            (VALUE, "row(1.0, '', 'won')::pair"),
        ],
    ),
    cell(
        "pairs",
        "pair[]",
        "array[row(0.0, 'x', null)::pair]",
        &[(SCALE, "array[row(0.00, 'x', null)::pair]"), (VALUE, "array[row(0.0, 'x', 'open')::pair]")],
    ),
    cell("a_hstore", "hstore", "'a=>\"\"'", &[(EMPTY, "'a=>NULL'"), (VALUE, "'a=>b'"), (EMPTY, "''")]),
    cell("a_citext", "citext", "'Mixed'", &[(SPELLING, "'mixed'"), (VALUE, "'Mixed '"), (EMPTY, "null")]),
    cell("a_type", "regtype", "'int4'", &[(VALUE, "'int8'")]),
    cell("days", "weekdays", "'{mo,tu}'", &[(VALUE, "'{tu,mo}'"), (SPELLING, "'[2:3]={mo,tu}'")]),
    cell("positives", "positive[]", "'{1}'", &[(VALUE, "'{2}'"), (EMPTY, "'{}'")]),
    cell(
        "t_text",
        "text",
        "E'tab\\t back\\\\ new\\n'",
        &[(VALUE, "replace(c, E'\\t', 't')"), (VALUE, "c || E'\\r'"), (EMPTY, "null")],
    ),
    cell("t_null", "text", "null", &[(EMPTY, "''"), (VALUE, "'\\N'")]),
    cell("t_float", "float8", "0", &[(ZERO, "'-0'"), (VALUE, "5e-324")]),
    cell("t_numeric", "numeric", "1.0", &[(SCALE, "1.00")]),
    cell("t_bytes", "bytea", "'\\x5c4e'", &[(VALUE, "'\\x5c4f'")]),
    cell("t_instant", "timestamptz", "'2024-01-01 00:00+00'", &[(VALUE, "c + interval '1 microsecond'")]),
    cell("t_interval", "interval", "'1 day'", &[(SPELLING, "'24 hours'")]),
    cell("t_money", "money", "'1.00'", &[(VALUE, "'1.01'")]),
    cell("t_json", "json", "'{\"a\":1}'", &[(SPELLING, "'{\"a\": 1}'")]),
];
