//! The public API, compared with `public-api.txt`: what becomes public, or stops to be, shows in a diff.
//!
//! The list is made from the source by a parser, so it needs no nightly compiler. It has every public item of
//! every public module, re-exports included, with its features; bodies, documentation and private fields are
//! left out.
#![allow(clippy::wildcard_enum_match_arm, reason = "syn's enums are non-exhaustive and have many variants")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use syn::{Attribute, Fields, ImplItem, Item, TraitItem, Type, UseTree, Visibility};

const HOW: &str = "UPDATE=1 cargo test -p repot --test public_api";

#[test]
fn public_api_is_the_listed_one() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut krate = Crate::default();
    krate.load(&root.join("src/lib.rs"), "repot", true, &[]);
    let list = format!("// The public API of repot. To rewrite this list: {HOW}\n{}", krate.list());
    let golden = root.join("public-api.txt");
    if env::var_os("UPDATE").is_some() {
        return fs::write(&golden, list).expect("the list is written");
    }
    let listed = fs::read_to_string(&golden).expect("public-api.txt");
    if let Some(difference) = difference(&listed, &list) {
        panic!("the public API differs from public-api.txt:\n{difference}If that is intended: {HOW}");
    }
}

/// The lines between the first and the last that differ, as `-` listed and `+` found.
fn difference(listed: &str, found: &str) -> Option<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (listed.lines().collect(), found.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(&new).take_while(same).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let marked = |lines: &[&str], mark| -> String {
        lines[..lines.len() - tail].iter().map(|line| format!("{mark} {line}\n")).collect()
    };
    Some(marked(old, '-') + &marked(new, '+')).filter(|text| !text.is_empty())
}

#[derive(Default)]
struct Crate {
    modules: BTreeMap<String, Module>,
}

struct Module {
    /// Whether it can be named from outside of the crate.
    public: bool,
    attributes: Vec<Attribute>,
    items: Vec<Item>,
}

impl Crate {
    /// Reads the file of module `name` and of all modules below it.
    fn load(&mut self, file: &Path, name: &str, public: bool, attributes: &[Attribute]) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let items =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items;
        let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
            Some("lib" | "mod") => file.with_file_name(""),
            _ => file.with_extension(""),
        };
        self.add(&folder, name, Module { public, attributes: attributes.to_vec(), items });
    }

    fn add(&mut self, folder: &Path, name: &str, mut module: Module) {
        module.items.retain(|item| !only_for_tests(attributes(item)));
        for item in &mut module.items {
            let Item::Mod(inner) = item else { continue };
            let below = format!("{name}::{}", inner.ident);
            let public = module.public && is_public(&inner.vis);
            let mut attributes = module.attributes.clone();
            attributes.extend(kept(&inner.attrs));
            if let Some((_, items)) = inner.content.take() {
                let folder = folder.join(inner.ident.to_string());
                self.add(&folder, &below, Module { public, attributes, items });
                continue;
            }
            let flat = folder.join(format!("{}.rs", inner.ident));
            let deep = folder.join(inner.ident.to_string()).join("mod.rs");
            self.load(if flat.exists() { &flat } else { &deep }, &below, public, &attributes);
        }
        self.modules.insert(name.to_owned(), module);
    }

    /// The text of all public modules.
    fn list(&self) -> String {
        let mut text = String::new();
        for (name, module) in self.modules.iter().filter(|(_, module)| module.public) {
            let mut items = self.public_items(name);
            if items.is_empty() {
                continue;
            }
            items.sort_by_cached_key(|(order, item)| (order.clone(), rank(item), print(item)));
            let conditions: String = module.attributes.iter().map(shown).collect();
            text += &format!("\n// {name}{conditions}\n");
            for (_, item) in items {
                text += &print(&item);
            }
        }
        text
    }

    /// The public items of a module with the names that they are sorted by; impls follow their types.
    fn public_items(&self, name: &str) -> Vec<(String, Item)> {
        let mut found = Vec::new();
        for item in &self.modules[name].items {
            match item {
                Item::Use(used) if is_public(&used.vis) => self.reexports(name, used, &mut found),
                Item::Macro(made) if made.ident.is_none() => {
                    panic!("{name}: a macro makes items here, and this list cannot see them");
                }
                item => self.push(name, item, None, &mut found),
            }
        }
        found
    }

    /// Adds a public item of `module` and its impls, under another name if one is given.
    fn push(&self, module: &str, item: &Item, renamed: Option<&syn::Ident>, found: &mut Vec<(String, Item)>) {
        let Some((ident, item)) = surface(item) else { return };
        let order = renamed.map_or_else(|| ident.clone(), ToString::to_string);
        if let Some(new) = renamed {
            let old = syn::Ident::new(&ident, new.span());
            found.push((order.clone(), syn::parse_quote!(pub use #old as #new;)));
        }
        found.push((order.clone(), item));
        for (holder, implementation) in self.impls() {
            let Type::Path(path) = &*implementation.self_ty else { continue };
            let segments: Vec<String> =
                path.path.segments.iter().map(|part| part.ident.to_string()).collect();
            if self.resolve(holder, &segments) == Some((module.to_owned(), ident.clone())) {
                found.extend(public_impl(implementation).map(|item| (order.clone(), item)));
            }
        }
    }

    fn impls(&self) -> impl Iterator<Item = (&str, &syn::ItemImpl)> {
        self.modules.iter().flat_map(|(name, module)| {
            module.items.iter().filter_map(move |item| match item {
                Item::Impl(implementation) => Some((name.as_str(), implementation)),
                _ => None,
            })
        })
    }

    /// Lists what a `pub use` makes public: the items themselves if they are this crate's, else the `use`.
    fn reexports(&self, name: &str, used: &syn::ItemUse, found: &mut Vec<(String, Item)>) {
        for (path, renamed) in leaves(&used.tree, &[]) {
            let Some((module, ident)) = self.resolve(name, &path) else {
                found.push((path.join("::"), Item::Use(used.clone())));
                continue;
            };
            let mut names = self.modules[&module]
                .items
                .iter()
                .filter_map(|item| surface(item).map(|(name, _)| (name, item)));
            if ident == "*" {
                names.for_each(|(_, item)| self.push(&module, item, None, found));
            } else if let Some((_, item)) = names.find(|(name, _)| *name == ident) {
                let new = (renamed != ident).then(|| syn::Ident::new(&renamed, used.use_token.span));
                self.push(&module, item, new.as_ref(), found);
            }
        }
    }

    /// Where the item that `path` means in `module` is defined: its module and name.
    fn resolve(&self, module: &str, path: &[String]) -> Option<(String, String)> {
        let (first, rest) = path.split_first()?;
        let (ident, between) = match rest.split_last() {
            None => {
                if self.defines(module, first) {
                    return Some((module.to_owned(), first.clone()));
                }
                return self.uses(module).find(|(_, name)| name == first && name != "*").and_then(
                    |(used, _)| {
                        if used.len() > 1 { self.resolve(module, &used) } else { None }
                    },
                );
            }
            Some(parts) => parts,
        };
        let mut at = match first.as_str() {
            "crate" => "repot".to_owned(),
            "self" => module.to_owned(),
            "super" => module.rsplit_once("::")?.0.to_owned(),
            other => format!("{module}::{other}"),
        };
        for part in between {
            at = if part == "super" { at.rsplit_once("::")?.0.to_owned() } else { format!("{at}::{part}") };
        }
        if ident == "*" {
            return self.modules.contains_key(&at).then_some((at, ident.clone()));
        }
        self.modules.contains_key(&at).then(|| self.resolve(&at, std::slice::from_ref(ident)))?
    }

    fn defines(&self, module: &str, name: &str) -> bool {
        self.modules[module].items.iter().any(|item| ident(item).is_some_and(|ident| ident == name))
    }

    fn uses(&self, module: &str) -> impl Iterator<Item = (Vec<String>, String)> {
        self.modules[module].items.iter().flat_map(|item| match item {
            Item::Use(used) => leaves(&used.tree, &[]),
            _ => Vec::new(),
        })
    }
}

/// Each name that a `use` brings: its path, and the name it gets.
fn leaves(tree: &UseTree, above: &[String]) -> Vec<(Vec<String>, String)> {
    let with = |name: &dyn ToString| [above, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(&path.ident)),
        UseTree::Name(name) if name.ident == "self" => {
            vec![(above.to_vec(), above.last().cloned().unwrap_or_default())]
        }
        UseTree::Name(name) => vec![(with(&name.ident), name.ident.to_string())],
        UseTree::Rename(name) => vec![(with(&name.ident), name.rename.to_string())],
        UseTree::Glob(_) => vec![(with(&"*"), "*".to_owned())],
        UseTree::Group(group) => group.items.iter().flat_map(|tree| leaves(tree, above)).collect(),
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        _ => false,
    })
}

/// The attributes that a user of the crate can observe.
fn kept(attributes: &[Attribute]) -> Vec<Attribute> {
    const KEPT: [&str; 6] = ["cfg", "derive", "macro_export", "must_use", "non_exhaustive", "repr"];
    let seen = |attribute: &&Attribute| {
        let hidden = matches!(&attribute.meta, syn::Meta::List(list) if list.path.is_ident("doc"));
        hidden || KEPT.iter().any(|name| attribute.path().is_ident(name))
    };
    attributes.iter().filter(seen).cloned().collect()
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn ident(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The name of a public item, and the item without what a user cannot see.
fn surface(item: &Item) -> Option<(String, Item)> {
    let mut item = item.clone();
    let (visibility, attributes) = match &mut item {
        Item::Const(item) => (&item.vis, &mut item.attrs),
        Item::Enum(item) => {
            item.variants.iter_mut().for_each(|variant| {
                variant.attrs = kept(&variant.attrs);
                strip_fields(&mut variant.fields, true);
            });
            (&item.vis, &mut item.attrs)
        }
        Item::Fn(item) => {
            item.block.stmts.clear();
            (&item.vis, &mut item.attrs)
        }
        Item::Macro(item) if item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) => {
            (&Visibility::Public(Default::default()), &mut item.attrs)
        }
        Item::Static(item) => {
            item.expr = syn::parse_quote!(_);
            (&item.vis, &mut item.attrs)
        }
        Item::Struct(item) => {
            strip_fields(&mut item.fields, false);
            (&item.vis, &mut item.attrs)
        }
        Item::Trait(item) => {
            item.items.iter_mut().for_each(strip_trait_item);
            (&item.vis, &mut item.attrs)
        }
        Item::Type(item) => (&item.vis, &mut item.attrs),
        Item::Union(_) => panic!("a union that this list does not know"),
        _ => return None,
    };
    *attributes = kept(attributes);
    is_public(visibility).then(|| Some((ident(&item)?, item)))?
}

/// Private fields become one `_private: _`, in a tuple `_`: that they exist is visible.
fn strip_fields(fields: &mut Fields, all: bool) {
    match fields {
        Fields::Named(named) => {
            let fields = named.named.iter().filter(|field| all || is_public(&field.vis)).cloned();
            let mut shown: syn::punctuated::Punctuated<syn::Field, syn::Token![,]> = fields.collect();
            if shown.len() < named.named.len() {
                let private: syn::FieldsNamed = syn::parse_quote!({ _private: _ });
                shown.extend(private.named);
            }
            shown.iter_mut().for_each(|field| field.attrs = kept(&field.attrs));
            named.named = shown;
        }
        Fields::Unnamed(unnamed) => {
            for field in &mut unnamed.unnamed {
                field.attrs = kept(&field.attrs);
                if !all && !is_public(&field.vis) {
                    field.ty = syn::parse_quote!(_);
                }
            }
        }
        Fields::Unit => {}
    }
}

fn strip_trait_item(item: &mut TraitItem) {
    match item {
        TraitItem::Fn(item) => {
            item.attrs = kept(&item.attrs);
            if let Some(body) = &mut item.default {
                body.stmts.clear();
            }
        }
        TraitItem::Const(item) => item.attrs = kept(&item.attrs),
        TraitItem::Type(item) => item.attrs = kept(&item.attrs),
        _ => {}
    }
}

/// The part of an impl that can be called: public functions, or the whole trait and its associated types.
fn public_impl(implementation: &syn::ItemImpl) -> Option<Item> {
    let mut shown = implementation.clone();
    shown.attrs = kept(&shown.attrs);
    let of_trait = shown.trait_.is_some();
    shown.items.retain_mut(|item| match item {
        ImplItem::Fn(function) => {
            function.attrs = kept(&function.attrs);
            function.block.stmts.clear();
            !of_trait && is_public(&function.vis)
        }
        ImplItem::Const(constant) => {
            constant.attrs = kept(&constant.attrs);
            of_trait || is_public(&constant.vis)
        }
        ImplItem::Type(_) => true,
        _ => false,
    });
    (of_trait || !shown.items.is_empty()).then_some(Item::Impl(shown))
}

fn rank(item: &Item) -> u8 {
    match item {
        Item::Use(_) => 0,
        Item::Impl(implementation) if implementation.trait_.is_some() => 3,
        Item::Impl(_) => 2,
        _ => 1,
    }
}

/// An attribute's text, after a space.
fn shown(attribute: &Attribute) -> String {
    let module = print(&syn::parse_quote!(#attribute mod x {}));
    module.lines().next().map(|line| format!(" {line}")).unwrap_or_default()
}

fn print(item: &Item) -> String {
    prettyplease::unparse(&syn::parse_quote!(#item))
}
