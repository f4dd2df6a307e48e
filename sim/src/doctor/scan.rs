use std::collections::BTreeSet;
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use slipring_core::{Error, Result};

use super::Finding;
use super::imports::{self, Imports};
use super::leaks::{GLOBAL, Leak, SELECT, can_change, leak_of};

/// The leaks in a source text, in the order of their lines, one of each kind a line. `file` is what they are
/// reported under.
///
/// # Errors
/// `Invalid` if the text is not made of Rust's words and brackets; it says where.
pub fn scan(file: &Path, text: &str) -> Result<Vec<Finding>> {
    let stream: TokenStream = text.parse().map_err(|error: proc_macro2::LexError| {
        let at = error.span().start();
        let place = format!("{}:{}:{}", file.display(), at.line, at.column + 1);
        Error::invalid("source", place, error.to_string())
    })?;
    let mut scan = Scan { imports: Imports::default(), found: BTreeSet::new(), file };
    scan.collect_imports(&stream);
    scan.look_at(&stream);
    let lines: Vec<&str> = text.lines().collect();
    let found = scan.found.into_iter();
    Ok(found.filter(|finding| !is_allowed(&lines, finding.line)).collect())
}

/// A comment on the line, or one that has the line before for itself.
fn is_allowed(lines: &[&str], line: usize) -> bool {
    let reason = |text: &str| {
        let (_, after) = text.split_once("// doctor: allow(")?;
        after.split_once(')').map(|(reason, _)| !reason.trim().is_empty())
    };
    let own = lines.get(line - 1).and_then(|text| reason(text));
    let before = line.checked_sub(2).and_then(|before| lines.get(before));
    let before = before.filter(|text| text.trim_start().starts_with("//")).and_then(|text| reason(text));
    own.or(before).unwrap_or(false)
}

struct Scan<'a> {
    imports: Imports,
    found: BTreeSet<Finding>,
    file: &'a Path,
}

impl Scan<'_> {
    fn collect_imports(&mut self, stream: &TokenStream) {
        let tokens: Vec<TokenTree> = stream.clone().into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.collect_imports(&group.stream()),
                TokenTree::Ident(ident) if ident == "use" => {
                    let imports = imports::read(until_semicolon(&tokens[at + 1..]));
                    imports.into_iter().for_each(|import| self.imports.add(import));
                }
                _ => {}
            }
        }
    }

    fn look_at(&mut self, stream: &TokenStream) {
        let tokens: Vec<TokenTree> = stream.clone().into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Group(group) => self.look_at(&group.stream()),
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let inner = is_punct(tokens.get(at), '!');
                    let Some(TokenTree::Group(group)) = tokens.get(at + usize::from(inner)) else { continue };
                    at += 1 + usize::from(inner);
                    match decides(group) {
                        true if inner => return,
                        true => at += item_length(&tokens[at..]),
                        false => {}
                    }
                }
                // A lifetime, or a field or a method of something.
                TokenTree::Punct(punct) if "'.".contains(punct.as_char()) => {
                    at += usize::from(matches!(tokens.get(at), Some(TokenTree::Ident(_))));
                }
                TokenTree::Ident(ident) if ident == "use" => {
                    let line = until_semicolon(&tokens[at..]);
                    at += line.len();
                    for import in imports::read(line) {
                        self.look_at_path(import.line, &import.path);
                    }
                }
                TokenTree::Ident(ident) if ident == "static" => {
                    let declared = until_semicolon(&tokens[at..]);
                    let kind = declared.iter().take_while(|token| !is_punct(Some(token), '='));
                    let mut words =
                        kind.filter(|token| matches!(token, TokenTree::Ident(_))).map(ToString::to_string);
                    if words.any(|word| can_change(&word)) {
                        self.tell(ident.span().start().line, "static".to_owned(), GLOBAL);
                    }
                }
                TokenTree::Ident(ident) => {
                    let path = path_at(&tokens[at - 1..]);
                    at += 3 * (path.len() - 1);
                    self.look_at_use(ident.span().start().line, &path, &tokens[at..]);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// A path in the code, and what comes after it.
    fn look_at_use(&mut self, line: usize, path: &[String], after: &[TokenTree]) {
        if let [exclamation, TokenTree::Group(body), ..] = after
            && is_punct(Some(exclamation), '!')
        {
            let name = path.last().map(String::as_str);
            let biased =
                matches!(body.stream().into_iter().next(), Some(TokenTree::Ident(i)) if i == "biased");
            match name {
                Some("select") if !biased => self.tell(line, format!("{}!", path.join("::")), SELECT),
                Some("thread_local" | "lazy_static") => {
                    self.tell(line, format!("{}!", path.join("::")), GLOBAL)
                }
                _ => {}
            }
            return;
        }
        let meanings: Vec<_> =
            self.imports.meanings(path).map(|(path, start)| (path, start.cloned())).collect();
        for (path, start) in meanings {
            if start.is_none_or(|start| leak_of(&start).is_none()) {
                self.look_at_path(line, &path);
            }
        }
    }

    fn look_at_path(&mut self, line: usize, path: &[String]) {
        if let Some(leak) = leak_of(path) {
            self.tell(line, path.join("::"), leak);
        }
    }

    fn tell(&mut self, line: usize, what: String, leak: Leak) {
        let Leak { symptoms, leaks, instead } = leak;
        self.found.insert(Finding { file: self.file.to_owned(), line, what, leaks, instead, symptoms });
    }
}

/// The path that begins here: names with `::` between them.
fn path_at(tokens: &[TokenTree]) -> Vec<String> {
    let mut path = vec![tokens[0].to_string()];
    let mut rest = &tokens[1..];
    while let [one, other, name @ TokenTree::Ident(_), after @ ..] = rest {
        if !is_punct(Some(one), ':') || !is_punct(Some(other), ':') {
            break;
        }
        path.push(name.to_string());
        rest = after;
    }
    path
}

fn until_semicolon(tokens: &[TokenTree]) -> &[TokenTree] {
    let end = tokens.iter().position(|token| is_punct(Some(token), ';'));
    &tokens[..end.unwrap_or(tokens.len())]
}

/// How many tokens the item has that begins here: up to its body, or to its semicolon.
fn item_length(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(Some(token), ';'),
    };
    tokens.iter().position(ends).map_or(tokens.len(), |end| end + 1)
}

/// Does an attribute take what it stands at out of a run, or say that it has been decided?
fn decides(attribute: &Group) -> bool {
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    let clippy = text.contains("clippy::disallowed_methods") || text.contains("clippy::disallowed_types");
    text == "cfg(test)" || (clippy && text.contains("reason="))
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}
