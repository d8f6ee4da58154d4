// Dom: the few ways in which this page changes itself.
//
// Keeps:  what has not changed is not touched, so that focus, selection and screen readers stay where they are.
// Never:  makes markup out of text that came from the node.

/** An element with attributes and children (elements or texts). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The same in the language of drawings. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Sets a text. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute; null takes it away. */
export function mark(element, name, value) {
  if (value == null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Words with a colour. */
export function tell(element, { words, kind }) {
  say(element, words);
  mark(element, "class", `state ${kind}`);
}

/** A share of a length, 0 to 1. */
export function fill(element, share) {
  element.style.inlineSize = `${(100 * Math.min(1, Math.max(0, share))).toFixed(2)}%`;
}

/** Makes `parent` hold one child for each item, in order; children of items that stay, stay. */
export function list(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (child) old.delete(name);
    else {
      child = create(item);
      child.dataset.key = name;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update(child, item);
  }
  for (const gone of old.values()) gone.remove();
}
