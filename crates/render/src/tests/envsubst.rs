use super::*;

type Values = BTreeMap<String, Variable>;

fn values(pairs: &[(&str, &str)]) -> Values {
    let variable = |text: &str| Variable { text: text.to_owned(), secret: false };
    pairs.iter().map(|(name, value)| ((*name).to_owned(), variable(value))).collect()
}

fn expand(text: &str, values: &Values, strict: bool) -> Result<String, Wrong> {
    Expander::new(values, strict).expand(text)
}

#[test]
fn variables_become_their_values() {
    let values = values(&[
        ("host", "shop.example.com"),
        ("path", "/srv/data/2026/report.tar.gz"),
        ("Mixed", "aBcD"),
        ("umlaut", "äöü"),
        ("sharp", "ßtraße"),
        ("number", "6"),
        ("minus", "-3"),
        ("empty", ""),
        ("slash", "a/b/c"),
        ("twice", "abXabXab"),
        ("class", "b7rest"),
    ]);
    for (text, expected) in [
        // Text, and what looks like variables.
        ("plain text", "plain text"),
        ("", ""),
        ("a } b { c", "a } b { c"),
        ("$host costs $5", "$host costs $5"),
        ("ends with $", "ends with $"),
        (r"C:\dir\\file", r"C:\dir\\file"),
        // Escapes: a pair of dollars is one.
        ("$${host}", "${host}"),
        ("$$host", "$host"),
        ("$$$${host}", "$${host}"),
        ("$$${host}", "$shop.example.com"),
        ("$${a=${number}}", "${a=6}"),
        // Values.
        ("https://${host}/x", "https://shop.example.com/x"),
        ("${host}${number}", "shop.example.com6"),
        ("${empty}|", "|"),
        // Lengths are of bytes.
        ("${#host}", "16"),
        ("${#umlaut}", "6"),
        ("${#empty}", "0"),
        // Case.
        ("${Mixed^}", "ABcD"),
        ("${Mixed^^}", "ABCD"),
        ("${Mixed,}", "aBcD"),
        ("${Mixed,,}", "abcd"),
        ("${umlaut^}", "Äöü"),
        ("${sharp^^}", "ßTRAßE"),
        ("${empty^}", ""),
        ("${Mixed^,}", "aBcD"),
        // Parts.
        ("${host:5}", "example.com"),
        ("${host:0:4}", "shop"),
        ("${host:5:7}", "example"),
        ("${host:-}", "shop.example.com"),
        ("${host:100}", ""),
        ("${host:100:3}", ""),
        ("${host:12:100}", ".com"),
        // What is less than nothing counts from the end.
        ("${host:5:-4}", "example"),
        ("${host:0:-12}", "shop"),
        ("${host:12:-12}", ""),
        ("${host:${minus}}", "com"),
        ("${host:${minus}:-1}", "co"),
        ("${host: -3}", "shop.example.com"),
        ("${host:x}", "shop.example.com"),
        ("${host:1:x}", "shop.example.com"),
        ("${host:${number}:2}", "xa"),
        ("${host:0::4}", "shop"),
        ("${umlaut:2:2}", "ö"),
        // Beginnings and ends.
        ("${path#*/}", "srv/data/2026/report.tar.gz"),
        ("${path##*/}", "report.tar.gz"),
        ("${path%.*}", "/srv/data/2026/report.tar"),
        ("${path%%.*}", "/srv/data/2026/report"),
        ("${path#nothing}", "/srv/data/2026/report.tar.gz"),
        ("${path%nothing}", "/srv/data/2026/report.tar.gz"),
        ("${class#[a-c]?}", "rest"),
        ("${class#[^a-c]?}", "b7rest"),
        (r"${class#\b}", "7rest"),
        ("${class#[}", "b7rest"),
        ("${class#[]}", "b7rest"),
        ("${class%[a-z]}", "b7rest"),
        ("${class##*}", ""),
        ("${umlaut#?}", "öü"),
        ("${umlaut%?}", "äö"),
        // Parts that become others.
        ("${twice/ab/-}", "-XabXab"),
        ("${twice//ab/-}", "-X-X-"),
        ("${twice//ab/}", "XX"),
        ("${twice/ab/}", "XabXab"),
        ("${twice/#ab/-}", "-XabXab"),
        ("${twice/#X/-}", "abXabXab"),
        ("${twice/%ab/-}", "abXabX-"),
        ("${twice/%X/-}", "abXabXab"),
        ("${twice/%ab/}", "abXabXab"),
        (r"${slash/\//-}", "a-b/c"),
        (r"${slash//\//-}", "a-b-c"),
        (r"${slash//\//\\}", r"a\b\c"),
        ("${twice/ab//x}", "xXabXab"),
        ("${twice//${number}/x}", "abXabXab"),
        ("${twice/ab/${number}}", "6XabXab"),
        // Defaults; what is empty has none of its own.
        ("${none:-fallback}", "fallback"),
        ("${none:=fallback}", "fallback"),
        ("${none=fallback}", "fallback"),
        ("${empty:-fallback}", "fallback"),
        ("${empty=fallback}", "fallback"),
        ("${host:-fallback}", "shop.example.com"),
        ("${none:-}", ""),
        ("${none:=a b: c}", "a b: c"),
        ("${none:=pre-${number}-post}", "pre-6-post"),
        ("${none:=${other:=${number}}}", "6"),
        ("${none:=${Mixed^^}}", "ABCD"),
        ("${none:=$$x}", "$$x"),
        // Not as in shells.
        ("${host:+set}", "shop.example.com"),
        ("${none:+set}", "set"),
        ("${none:?why}", "why"),
    ] {
        let found = expand(text, &values, true);
        assert_eq!(found.as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_has_no_value_is_an_error_unless_that_is_wanted() {
    for text in [
        "${none}",
        "${#none}",
        "${none^}",
        "${none^^}",
        "${none,}",
        "${none,,}",
        "${none:0}",
        "${none:0:10}",
        "${none/a/b}",
        "${none//a/b}",
        "${none/#a/b}",
        "${none/%a/b}",
        "${none#a}",
        "${none##a}",
        "${none%a}",
        "${none%%a}",
        "${other:=${none}}",
    ] {
        let why = Why::NoValue { name: "none".into() };
        assert_eq!(expand(text, &Values::new(), true), Err(Wrong { at: 0, why }), "{text}");
        let nothing = if text == "${#none}" { "0" } else { "" };
        assert_eq!(expand(text, &Values::new(), false).as_deref(), Ok(nothing), "{text}");
    }
    let wrong = expand("a: b\nc: ${x}", &Values::new(), true).unwrap_err();
    assert_eq!((wrong.at, wrong.why.to_string()), (8, "${x} has no value, and no default".into()));
}

#[test]
fn what_cannot_be_read_is_told() {
    let values = values(&[("a", "abc"), ("n", "ä")]);
    for (text, expected) in [
        ("${", "no name of a variable follows ${"),
        ("${}", "no name of a variable follows ${"),
        ("${#}", "no name of a variable follows ${"),
        ("${ a}", "no name of a variable follows ${"),
        ("${a", "${a… is not complete"),
        ("${#a", "${a#… is not complete"),
        ("${a-b}", "after ${a comes `-` and neither } nor one of : = , ^ / # %"),
        ("${a+b}", "after ${a comes `+` and neither } nor one of : = , ^ / # %"),
        ("${a?b}", "after ${a comes `?` and neither } nor one of : = , ^ / # %"),
        ("${a[@]}", "after ${a comes `[` and neither } nor one of : = , ^ / # %"),
        ("${a b}", "after ${a comes ` ` and neither } nor one of : = , ^ / # %"),
        ("${a:}", "${a:… is not complete"),
        ("${a:=b", "${a:=… is not complete"),
        ("${a#}", "${a#… is not complete"),
        ("${a/b}", "${a/… is not complete"),
        ("${a/b/c", "${a/… is not complete"),
        ("${a///}", "${a//… is not complete"),
        ("${a^^^}", "${a^^… is not complete"),
        ("${a/b/c${a}}", "${a/… is not complete"),
        ("${n:1}", "${n:…} cuts a character in two"),
    ] {
        let found = expand(text, &values, true).map_err(|wrong| wrong.why.to_string());
        assert_eq!(found, Err(expected.to_owned()), "{text}");
    }
    let deep = "${a:=".repeat(60) + &"}".repeat(60);
    assert_eq!(expand(&deep, &values, true).unwrap_err().why, Why::TooDeep);
    let many = format!("{}${{a}}", "${a}".repeat(1000));
    assert_eq!(expand(&many, &values, true).map(|text| text.len()), Ok(3003));
    let large = self::values(&[("a", &"x".repeat(1_000_000))]);
    let pattern = format!("${{a#{}y}}", "x".repeat(1000));
    assert_eq!(expand(&pattern, &large, true).unwrap_err().why, Why::TooLarge { name: "a".into() });
}

#[test]
fn it_is_known_when_a_secret_was_used() {
    let mut values = values(&[("a", "b")]);
    values.insert("s".into(), Variable { text: "hunter2".into(), secret: true });
    for (text, secret) in [("${a}", false), ("${s}", true), ("${a:=${s}}", true), ("${#s}", true)] {
        let mut expander = Expander::new(&values, true);
        expander.expand(text).unwrap();
        assert_eq!(expander.used_secret(), secret, "{text}");
        assert!(!format!("{expander:?}").contains("hunter2"));
    }
}

#[test]
fn a_value_is_one_line_and_a_name_is_one_word() {
    assert_eq!(Variable::new("a\nb\n", false).text, "ab");
    for name in ["a", "_", "A_1", "_9"] {
        assert!(Variable::is_name(name), "{name}");
    }
    for name in ["", "1a", "a-b", "a.b", "ä", "a b"] {
        assert!(!Variable::is_name(name), "{name}");
    }
}
