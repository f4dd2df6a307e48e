use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenTree};

/// A path, in parts.
pub(super) type Path = Vec<String>;

/// What the `use` lines of a file bring in, wherever in it they stand.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// By the name under which it is known here.
    names: BTreeMap<String, Vec<Path>>,
    /// Of which all is known here.
    globs: Vec<Path>,
}

/// One path of a `use` line.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) line: usize,
    pub(super) path: Path,
    name: Option<String>,
}

impl Imports {
    pub(super) fn add(&mut self, import: Import) {
        match import.name {
            Some(name) => self.names.entry(name).or_default().push(import.path),
            None => self.globs.push(import.path),
        }
    }

    /// What a path may mean that stands in the code, and whether a `use` line named it so far that it is told
    /// there.
    pub(super) fn meanings<'a>(
        &'a self,
        path: &'a [String],
    ) -> impl Iterator<Item = (Path, Option<&'a Path>)> {
        let first = &path[0];
        let named = self.names.get(first).map_or(&[][..], Vec::as_slice);
        let by_name = named.iter().map(move |start| ([start, &path[1..]].concat(), Some(start)));
        let globs = if named.is_empty() { &self.globs[..] } else { &[] };
        let by_glob = globs.iter().map(move |start| ([start, path].concat(), None));
        let as_it_is = named.is_empty().then(|| (path.to_vec(), None));
        by_name.chain(by_glob).chain(as_it_is)
    }
}

/// The paths of a `use` line, from what stands between `use` and its semicolon.
pub(super) fn read(tokens: &[TokenTree]) -> Vec<Import> {
    let mut imports = Vec::new();
    read_into(&mut imports, &[], tokens);
    imports
}

fn read_into(imports: &mut Vec<Import>, start: &[String], tokens: &[TokenTree]) {
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
    for tree in tokens.split(is_comma) {
        let (mut path, mut name, mut line, mut is_leaf) = (start.to_vec(), None, 0, true);
        let mut parts = tree.iter();
        while let Some(token) = parts.next() {
            line = token.span().start().line;
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    name = parts.next().map(ToString::to_string);
                }
                TokenTree::Ident(ident) if ident == "self" && !path.is_empty() => {}
                TokenTree::Ident(ident) => path.push(ident.to_string()),
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    read_into(imports, &path, &inner);
                    is_leaf = false;
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    imports.push(Import { line, path: path.clone(), name: None });
                    is_leaf = false;
                }
                _ => {}
            }
        }
        if let (true, Some(last)) = (is_leaf, path.last()) {
            let name = name.or_else(|| Some(last.clone()));
            imports.push(Import { line, path, name });
        }
    }
}
