export class Component { constructor(props?: any); props: any; state: any; base: any; writer: any; version: any; written: any; setState(state: any): void; }
export function html(strings: TemplateStringsArray, ...values: any[]): any;
export function render(tree: any, into: Element): void;
export function useState<T>(initial: T): [T, (next: T | ((known: T) => T)) => void];
export function useRef<T>(initial: T): { current: T };
export function useEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useMemo<T>(make: () => T, inputs: readonly unknown[]): T;
