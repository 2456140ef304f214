//! Which columns take their numbers from which sequence.

/// Begins a question with `used`: sequences, and each column that owns one or takes its default
/// from it. `by_default` are those that only do the latter: the column of a partition, and that of
/// a chunk, has a copy of its parent's default.
pub(super) const USED: &str = "
    WITH used AS (
        SELECT sequence, relation, number, bool_and(by_default) AS by_default FROM (
            SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS number, false AS by_default
            FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
            UNION ALL
            SELECT d.refobjid, f.adrelid, f.adnum, true FROM pg_attrdef f
            JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                 AND d.refclassid = 'pg_class'::regclass
            WHERE pg_get_expr(f.adbin, f.adrelid)
                  ~ '^[(]?nextval[(]''([^'']|'''')*''::regclass[)][)]?(::(smallint|integer|bigint|numeric))?$'
        ) AS found GROUP BY sequence, relation, number)";
