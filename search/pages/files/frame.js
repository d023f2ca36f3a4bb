"use strict";
// Shared by every page: its data, and small helpers to build and draw. Nothing here reaches outside the file.

function pageData() {
  return JSON.parse(document.getElementById("data").textContent);
}

// An element with attributes and children; text children are text, never markup.
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children.flat());
  return element;
}

// A colour of the page's palette, which is another one in the dark: see frame.css.
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

// A figure as people read it: four significant digits at most.
function figure(value) {
  if (value === null || value === undefined) return "–";
  return String(Number(Number(value).toPrecision(4)));
}
